/*
 * lvmlockd --test: everything is granted and no drive is used.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "check.h"
#include "core.h"
#include "errors.h"

#include <stdlib.h>

int main(void)
{
	struct lockspace *ls;
	struct resource *vg, *lv;
	struct val_blk vb = { 0 };

	daemon_test = 1;
	CHECK_IS(lm_data_size_idm(), 0);
	CHECK_IS(lm_is_running_idm(), 0);
	gl_use_idm = 1;
	CHECK_IS(lm_is_running_idm(), 1);

	ls = core_vg_lockspace("vg0", VG_UUID, core_pvs("/no/such/drive", NULL));
	vg = core_resource(LD_RT_VG, "VGLK");
	lv = core_resource(LD_RT_LV, LV_UUID);
	CHECK_IS(lm_prepare_lockspace_idm(ls), 0);
	CHECK_IS(core_add_lockspace(ls), 0);
	CHECK_IS(lm_hosts_idm(ls, 1), 0);

	CHECK_IS(core_lock(ls, vg, LD_LK_EX, &vb, "", &(struct pvs) { NULL, 0 }), 0);
	CHECK(vb.version == 0 && vb.flags == 0 && vb.r_version == 0);
	CHECK_IS(core_get_lvb(ls, vg, &vb), 0);
	CHECK(vb.version == 0 && vb.flags == 0 && vb.r_version == 0);
	CHECK_IS(core_unlock(ls, vg, 5, 0), 0);
	CHECK_IS(core_get_lvb(ls, vg, &vb), 0);
	CHECK(vb.version == VAL_BLK_VERSION && vb.flags == 0 && vb.r_version == 5);
	CHECK_IS(core_get_lvb(ls, vg, NULL), -EINVAL);
	CHECK_IS(core_get_lvb(ls, lv, &vb), 0);
	CHECK(vb.version == 0 && vb.flags == 0 && vb.r_version == 0);
	CHECK_IS(core_lock(ls, vg, LD_LK_SH, &vb, "", &(struct pvs) { NULL, 0 }), 0);
	CHECK(vb.version == VAL_BLK_VERSION && vb.flags == 0 && vb.r_version == 5);
	CHECK_IS(core_convert(ls, vg, LD_LK_EX, 0), 0);
	CHECK_IS(core_convert(ls, vg, LD_LK_SH, 6), 0);
	CHECK_IS(core_unlock(ls, vg, 0, 0), 0);
	CHECK_IS(core_lock(ls, vg, LD_LK_SH, &vb, "", NULL), 0);
	CHECK_IS(vb.r_version, 6);
	CHECK_IS(core_unlock(ls, vg, 0, 0), 0);

	CHECK_IS(core_lock_lv(ls, lv, LD_LK_EX, core_pvs("/no/such/drive", NULL)), 0);
	CHECK_IS(core_unlock(ls, lv, 0, 0), 0);
	CHECK_IS(core_lock_lv(ls, lv, LD_LK_NL, core_pvs("/no/such/drive", NULL)), -EINVAL);
#if RELEASE >= 40
	lv->test_remote_sh = 1;
	CHECK_IS(core_lock_lv(ls, lv, LD_LK_EX, core_pvs("/no/such/drive", NULL)), -EAGAIN);
	CHECK_IS(core_lock_lv(ls, lv, LD_LK_SH, core_pvs("/no/such/drive", NULL)), 0);
	lv->test_remote_sh = 0;
	lv->test_remote_ex = 1;
	CHECK_IS(core_lock_lv(ls, lv, LD_LK_SH, core_pvs("/no/such/drive", NULL)), -EAGAIN);
	lv->test_remote_ex = 0;
#endif
	/* Bits that mean something else, and padding. */
	lv->lm_init = lv->adopt = lv->version_zero_valid = lv->use_vb = 1;
	CHECK_IS(core_lock_lv(ls, lv, LD_LK_EX, core_pvs("/no/such/drive", NULL)), 0);

	CHECK_IS(lm_rem_resource_idm(ls, lv), 0);
	CHECK_IS(lm_rem_resource_idm(ls, vg), 0);
	CHECK_IS(lm_rem_lockspace_idm(ls, 1), 0);
	core_free_resource(lv);
	core_free_resource(vg);
	core_free_lockspace(ls);
	return report();
}
