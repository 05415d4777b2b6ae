/*
 * A program that is not lvmlockd and has none of its symbols: the library loads, prints its log on
 * stderr, and works if there is a layout table.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "check.h"
#include "errors.h"
#include "lvmlockd.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int threads(void)
{
	int count = 0;
	DIR *tasks = opendir("/proc/self/task");
	struct dirent *entry;

	while ((entry = readdir(tasks)))
		count += entry->d_name[0] != '.';
	closedir(tasks);
	return count;
}

int main(void)
{
	static char text[1 << 16];
	static char *paths[] = { "/dev/idm0", "/dev/idm1", "/dev/idm2" };
	static struct lockspace ls = {
		.name = "lvm_vg0", .vg_name = "vg0",
		.vg_uuid = "Fw4xZP-2NTq-Ysm0-7dHj-b2nS-xBcf-PfAQ9g",
		.pvs = { paths, 3 },
	};
	static struct resource vg = { .name = "VGLK", .type = LD_RT_VG };
	static struct resource lv = {
		.name = "o3Pd1k-QmZe-9Xa2-Lw0T-uYb7-cN5r-Vt8HsK", .type = LD_RT_LV
	};
	struct val_blk vb = { 9, 9, 9 };
	FILE *log = tmpfile();
	int stderr_was = dup(2);

	/* lvmlockd forks after constructors have run, and no thread would survive that. */
	CHECK_IS(threads(), 1);
	setenv("LVMLOCKD_IDM_LOG", "stderr", 1);
	dup2(fileno(log), 2);
	CHECK_IS(lm_data_size_idm(), 0);
	CHECK_IS(threads(), 1);
#ifdef TABLE
	CHECK_IS(lm_is_running_idm(), 1);
	CHECK_IS(lm_prepare_lockspace_idm(&ls), 0);
	CHECK_IS(lm_add_lockspace_idm(&ls, 0, 0), 0);
	CHECK_IS(lm_lock_idm(&ls, &vg, LD_LK_EX, &vb, "", &(struct pvs) { NULL, 0 }, 0, 0), 0);
	CHECK(vb.version == 0 && vb.flags == 0 && vb.r_version == 0);
	CHECK_IS(lm_lock_idm(&ls, &lv, LD_LK_EX, NULL, lv.name, NULL, 0, 0), 0);
	CHECK_IS(lm_get_lvb_idm(&ls, &vg, &vb), 0);
	CHECK_IS(lm_hosts_idm(&ls, 0), 0);
	CHECK_IS(lm_unlock_idm(&ls, &lv, 0, 0), 0);
	CHECK_IS(lm_unlock_idm(&ls, &vg, 3, 0), 0);
	CHECK_IS(lm_rem_resource_idm(&ls, &lv), 0);
	CHECK_IS(lm_rem_resource_idm(&ls, &vg), 0);
	CHECK_IS(lm_rem_lockspace_idm(&ls, 0), 0);
#else
	CHECK_IS(lm_is_running_idm(), 0);
	CHECK_IS(lm_prepare_lockspace_idm(&ls), -EMANAGER);
	CHECK(lm_add_lockspace_idm(&ls, 0, 0) < 0);
	CHECK_IS(lm_lock_idm(&ls, &vg, LD_LK_EX, &vb, "", &(struct pvs) { NULL, 0 }, 0, 0),
		 -ELOCKIO);
	CHECK_IS(lm_lock_idm(&ls, &lv, LD_LK_EX, NULL, lv.name, NULL, 0, 0), -ELOCKIO);
	CHECK_IS(lm_get_lvb_idm(&ls, &vg, &vb), -ELOCKIO);
	CHECK_IS(lm_unlock_idm(&ls, &lv, 0, 0), 0);
#endif
	CHECK_IS(lm_get_lockspaces_idm(NULL), 0);
	fflush(stderr);
	dup2(stderr_was, 2);

	rewind(log);
	text[fread(text, 1, sizeof(text) - 1, log)] = '\0';
	CHECK(!strncmp(text, "idm: ", 5));
	CHECK(strstr(text, "\nidm: lm_data_size_idm = 0\n") != NULL);
#ifdef TABLE
	CHECK(strstr(text, "lm_lock_idm lvm_vg0 VGLK ex = 0\n") != NULL);
#else
	CHECK(strstr(text, "it has neither lvmlockd_idm_layout nor alloc_lockspace") != NULL);
#endif
	fclose(log);
	close(stderr_was);
	return report();
}
