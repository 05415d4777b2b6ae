/*
 * If the layout of lvmlockd's structs is not certain, no lockspace is started.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "check.h"
#include "core.h"
#include "errors.h"

#include <syslog.h>

#ifdef TABLE_VERSION
/* As in lvm2/lvmlockd-idm.c, but of a version that is still to come. */
const struct {
	char magic[8];
	uint32_t version, size, lockspace_pvs, adopt_args;
	const char *lvm_path;
} lvmlockd_idm_layout = {
	{ 'L', 'V', 'M', 'L', 'D', 'I', 'D', 'M' }, TABLE_VERSION, 32,
	offsetof(struct lockspace, pvs), 2, "/sbin/lvm",
};
#endif

int main(void)
{
	struct lockspace *ls = core_vg_lockspace("vg0", VG_UUID, core_pvs("/dev/idm0", NULL));
	struct lockspace *global = core_global_lockspace();
	struct resource *vg = core_resource(LD_RT_VG, "VGLK");
	struct resource *lv = core_resource(LD_RT_LV, LV_UUID);

	CHECK_IS(lm_data_size_idm(), 0);
	CHECK(core_logged(WHY));
	CHECK(core_logged_at(LOG_ERR) > 0);
	CHECK_IS(core_logged_at(LOG_WARNING), 0);
	CHECK_IS(lm_is_running_idm(), 0);
	CHECK_IS(lm_prepare_lockspace_idm(ls), -EMANAGER);
	CHECK_IS(lm_prepare_lockspace_idm(global), -EMANAGER);
	CHECK(core_add_lockspace(ls) < 0);
	CHECK_IS(core_lock(ls, vg, LD_LK_SH, NULL, "", &(struct pvs) { NULL, 0 }), -ELOCKIO);
	CHECK_IS(core_lock_lv(ls, lv, LD_LK_EX, core_pvs("/dev/idm0", NULL)), -ELOCKIO);
	CHECK_IS(core_get_lvb(ls, vg, &(struct val_blk) { 0 }), -ELOCKIO);
	CHECK(core_convert(ls, vg, LD_LK_EX, 0) < 0);
	CHECK_IS(core_unlock(ls, vg, 1, 0), 0);
	CHECK_IS(lm_rem_resource_idm(ls, vg), 0);
	CHECK(lm_hosts_idm(ls, 0) < 0);
	CHECK_IS(lm_rem_lockspace_idm(ls, 0), 0);
	core_free_resource(vg);
	core_free_resource(lv);
	core_free_lockspace(ls);
	core_free_lockspace(global);
	return report();
}
