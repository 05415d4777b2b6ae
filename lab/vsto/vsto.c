// SPDX-License-Identifier: GPL-2.0
/*
 * Gives virtio_scsi the time-outs that other SCSI adapters have. Its own handler starts the timer
 * anew for ever, so that a command to a drive that does not answer would never be aborted.
 * To be loaded when the adapters are there.
 */
#include <linux/module.h>
#include <linux/string.h>
#include <scsi/scsi_host.h>

static int __init vsto_init(void)
{
	unsigned int number, changed = 0;

	for (number = 0; number < 64; number++) {
		struct Scsi_Host *host = scsi_host_lookup(number);
		struct scsi_host_template *template;

		if (!host)
			continue;
		template = (struct scsi_host_template *)host->hostt;
		if (template->proc_name && !strcmp(template->proc_name, "virtio_scsi")) {
			template->eh_timed_out = NULL;
			changed++;
		}
		scsi_host_put(host);
	}
	pr_info("vsto: %u virtio_scsi adapters have time-outs now\n", changed);
	return 0;
}
module_init(vsto_init);

static void __exit vsto_exit(void)
{
}
module_exit(vsto_exit);

MODULE_DESCRIPTION("Command time-outs for virtio_scsi");
MODULE_LICENSE("GPL");
