/*
 * Every entry point, with correct, missing and broken arguments, without any drive.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "check.h"
#include "core.h"
#include "errors.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <syslog.h>

#define NO_PVS ((struct pvs) { NULL, 0 })

static void layout_is_found(void)
{
	char line[80];

	CHECK_IS(lm_data_size_idm(), 0);
	sprintf(line, "lockspace_pvs: %zu, adopt_args: %d", offsetof(struct lockspace, pvs),
		RELEASE < 25 ? 1 : 2);
	CHECK(core_logged(line));
#ifdef TABLE
	CHECK(core_logged("lvm_path: Some(\"/usr/sbin/lvm\")"));
#else
	CHECK(core_logged("lvm_path: None"));
#endif
	CHECK_IS(core_logged_at(LOG_ERR), 0);
	CHECK_IS(core_logged_at(LOG_WARNING), 0);
}

static void nothing_is_configured(void)
{
	CHECK_IS(lm_is_running_idm(), 0);
	/* It is asked often, by programs that have nothing to do with IDM. */
	CHECK_IS(core_logged_at(LOG_ERR), 0);
}

static int prepare(struct lockspace *ls)
{
	struct lockspace before = *ls;
	int result = lm_prepare_lockspace_idm(ls);

	CHECK(!memcmp(&before, ls, sizeof(before)));
	core_free_lockspace(ls);
	return result;
}

static void parameters_are_checked_at_start(void)
{
	struct pvs stale = { NULL, 7 };
	struct pvs negative = core_pvs("/dev/idm0", NULL);
	struct pvs hole = core_pvs("/dev/idm0", "/dev/idm1", "/dev/idm2", NULL);
	struct lockspace *ls;
	char endless[5000];

	CHECK_IS(lm_prepare_lockspace_idm(NULL), -EARGS);
	CHECK_IS(prepare(core_vg_lockspace("vg0", VG_UUID, NO_PVS)), -EARGS);
	CHECK_IS(prepare(core_vg_lockspace("vg0", VG_UUID, stale)), -EARGS);

	ls = core_vg_lockspace("vg0", VG_UUID, negative);
	ls->pvs.num = -1;
	CHECK_IS(lm_prepare_lockspace_idm(ls), -EARGS);
	ls->pvs.num = 1;
	core_free_lockspace(ls);

	free(hole.path[1]);
	hole.path[1] = NULL;
	CHECK_IS(prepare(core_vg_lockspace("vg0", VG_UUID, hole)), -EARGS);

	CHECK_IS(prepare(core_vg_lockspace("vg0", VG_UUID, core_pvs("/dev/\xff", NULL))), -EARGS);
	CHECK_IS(prepare(core_vg_lockspace("vg0", VG_UUID, core_pvs("", NULL))), -ELOCKIO);
	memset(endless, 'x', sizeof(endless));
	endless[sizeof(endless) - 1] = '\0';
	CHECK_IS(prepare(core_vg_lockspace("vg0", VG_UUID, core_pvs(endless, NULL))), -EARGS);

	/* Drives that are not there, a file that is no drive, and too many of them. */
	CHECK_IS(prepare(core_vg_lockspace("vg0", VG_UUID, core_pvs("/dev/idm0", NULL))), -ELOCKIO);
	CHECK_IS(prepare(core_vg_lockspace("vg0", VG_UUID, core_pvs("/dev/null", NULL))), -EARGS);
	CHECK_IS(prepare(core_vg_lockspace("vg0", VG_UUID, core_many_pvs(513))), -EARGS);

	/* Uuids. */
	CHECK_IS(prepare(core_vg_lockspace("vg0", "", core_pvs("/dev/idm0", NULL))), -EARGS);
	CHECK_IS(prepare(core_vg_lockspace("vg0", "Fw4xZP-2NTq", core_pvs("/dev/idm0", NULL))),
		 -EARGS);
	CHECK_IS(prepare(core_vg_lockspace("vg0", "Fw4xZP-2NTq-Ysm0-7dHj-b2nS-xBcf-PfAQ9\n",
					   core_pvs("/dev/idm0", NULL))), -EARGS);

	/* Names and a uuid that do not end. */
	ls = core_vg_lockspace("vg0", VG_UUID, core_pvs("/dev/idm0", NULL));
	memset(ls->name, 'n', sizeof(ls->name));
	memset(ls->vg_name, 'v', sizeof(ls->vg_name));
	CHECK_IS(prepare(ls), -EARGS);
	ls = core_vg_lockspace("vg0", VG_UUID, core_pvs("/dev/idm0", NULL));
	memset(ls->vg_uuid, 'u', sizeof(ls->vg_uuid));
	CHECK_IS(prepare(ls), -EARGS);
	CHECK_IS(prepare(core_vg_lockspace("\xc3(", VG_UUID, core_pvs("/dev/idm0", NULL))), -EARGS);
	CHECK(core_logged("the VG name is not UTF-8: \\xc3("));

	/* A lockspace that is neither the global one nor a VG's. */
	CHECK_IS(prepare(core_vg_lockspace("", VG_UUID, NO_PVS)), -EARGS);
}

static void global_lockspace_starts_without_drives(void)
{
	struct lockspace *ls = core_global_lockspace();
	struct resource *gl = core_resource(LD_RT_GL, "GLLK");
	struct resource *vg = core_resource(LD_RT_VG, "VGLK");
	struct val_blk vb = { 0 };

	ls->pvs.num = 3;		/* stale */
	CHECK_IS(lm_prepare_lockspace_idm(ls), 0);
	CHECK_IS(core_add_lockspace(ls), 0);
	CHECK_IS(core_lock(ls, gl, LD_LK_SH, &vb, "", &(struct pvs) { NULL, 0 }), -ELOCKIO);
	CHECK_IS(core_lock(ls, gl, LD_LK_EX, NULL, "", NULL), -ELOCKIO);
	CHECK_IS(core_get_lvb(ls, gl, &vb), -ELOCKIO);
	CHECK_IS(core_unlock(ls, gl, 0, 0), 0);
	CHECK_IS(lm_rem_resource_idm(ls, gl), 0);
	/* Never locked, and removed all the same. */
	CHECK_IS(lm_rem_resource_idm(ls, vg), 0);
	CHECK_IS(lm_rem_lockspace_idm(ls, 0), 0);
	core_free_resource(gl);
	core_free_resource(vg);
	core_free_lockspace(ls);
}

static void calls_without_a_lockspace(void)
{
	struct lockspace *ls = core_vg_lockspace("vg0", VG_UUID, core_pvs("/dev/idm0", NULL));
	struct resource *vg = core_resource(LD_RT_VG, "VGLK");
	struct resource *lv = core_resource(LD_RT_LV, LV_UUID);
	struct resource *odd = core_resource(9, "ODD");
	struct pvs pvs = core_pvs("/dev/idm0", "/dev/idm1", NULL);
	struct val_blk vb = { 1, 2, 3 };

	CHECK(core_add_lockspace(ls) < 0);
	CHECK_IS(core_lock(ls, vg, LD_LK_EX, &vb, "", &(struct pvs) { NULL, 0 }), -ENOLS);
	CHECK_IS(core_get_lvb(ls, vg, &vb), -ENOLS);
	CHECK_IS(core_get_lvb(ls, lv, &vb), -ENOLS);
	CHECK_IS(core_get_lvb(ls, odd, &vb), -EINVAL);
	CHECK(vb.version == 1 && vb.flags == 2 && vb.r_version == 3);
	CHECK_IS(core_lock_lv(ls, lv, LD_LK_EX, core_pvs("/dev/idm0", "/dev/idm1", NULL)), -ENOLS);
	CHECK_IS(core_lock_lv(ls, lv, LD_LK_EX, NO_PVS), -ENOLS);
	CHECK_IS(core_lock_lv(ls, lv, LD_LK_EX, (struct pvs) { NULL, 4 }), -ENOLS);

	/* The list of an LV is taken also where nothing else can be done with the request. */
	for (int mode = LD_LK_IV; mode <= LD_LK_EX + 1; mode++)
		if (mode != LD_LK_SH && mode != LD_LK_EX)
			CHECK_IS(core_lock_lv(ls, lv, mode, core_pvs("/dev/idm0", NULL)), -EINVAL);
	CHECK_IS(core_lock_lv(NULL, lv, LD_LK_EX, core_pvs("/dev/idm0", NULL)), -EINVAL);
	CHECK_IS(core_lock_lv(ls, lv, LD_LK_EX, core_pvs("/dev/\xff", NULL)), -EINVAL);
	strcpy(lv->name, "no uuid");
	CHECK(core_lock_lv(ls, lv, LD_LK_EX, core_pvs("/dev/idm0", NULL)) < 0);
	memset(lv->name, 'u', sizeof(lv->name));
	CHECK_IS(core_lock_lv(ls, lv, LD_LK_EX, core_pvs("/dev/idm0", NULL)), -EINVAL);
	CHECK_IS(core_lock(ls, lv, LD_LK_EX, &vb, NULL, &(struct pvs) { NULL, 0 }), -EINVAL);
	CHECK_IS(core_get_lvb(ls, lv, &vb), -EINVAL);

	/* The list of anything else stays core's. */
	CHECK_IS(core_lock(ls, odd, LD_LK_EX, &vb, "", &pvs), -EINVAL);
	CHECK_IS(pvs.num, 2);
	CHECK(pvs.path != NULL);
	CHECK_IS(core_lock(ls, vg, LD_LK_EX, &vb, "", &pvs), -ENOLS);
	CHECK_IS(pvs.num, 2);
	CHECK(pvs.path != NULL);
	core_free_pvs(&pvs);

	CHECK(core_convert(ls, vg, LD_LK_SH, 0) < 0);
	CHECK(core_convert(ls, vg, 77, 0) < 0);
	CHECK_IS(core_unlock(ls, vg, 0, 0), 0);
	CHECK_IS(core_unlock(ls, vg, 12, LMUF_FREE_VG), 0);
	CHECK(lm_hosts_idm(ls, 1) < 0);
	CHECK_IS(lm_add_resource_idm(ls, vg), 0);
	CHECK_IS(lm_rem_resource_idm(ls, vg), 0);
	CHECK_IS(lm_rem_resource_idm(ls, vg), 0);
	CHECK_IS(lm_rem_lockspace_idm(ls, 1), 0);
	core_free_resource(vg);
	core_free_resource(lv);
	core_free_resource(odd);
	core_free_lockspace(ls);
}

static void null_everywhere(void)
{
	struct lockspace *ls = core_vg_lockspace("vg0", VG_UUID, NO_PVS);
	struct resource *r = core_resource(LD_RT_LV, LV_UUID);

	CHECK(core_add_lockspace(NULL) < 0);
	CHECK(lm_rem_lockspace_idm(NULL, 0) <= 0);
	CHECK_IS(lm_add_resource_idm(NULL, NULL), 0);
	CHECK_IS(lm_add_resource_idm(ls, NULL), 0);
	CHECK_IS(lm_add_resource_idm(NULL, r), 0);
	CHECK_IS(lm_rem_resource_idm(NULL, NULL), 0);
	CHECK_IS(lm_rem_resource_idm(NULL, r), 0);
	CHECK_IS(core_lock(NULL, NULL, LD_LK_EX, NULL, NULL, NULL), -EINVAL);
	CHECK_IS(core_lock(ls, NULL, LD_LK_EX, NULL, NULL, NULL), -EINVAL);
	CHECK_IS(core_lock(NULL, r, LD_LK_EX, NULL, NULL, NULL), -EINVAL);
	CHECK_IS(core_lock(ls, r, LD_LK_EX, NULL, NULL, NULL), -EINVAL);
	CHECK_IS(core_get_lvb(NULL, NULL, NULL), -EINVAL);
	CHECK_IS(core_get_lvb(ls, NULL, &(struct val_blk) { 0 }), -EINVAL);
	CHECK_IS(core_get_lvb(NULL, r, &(struct val_blk) { 0 }), -EINVAL);
	CHECK_IS(core_get_lvb(ls, r, NULL), -EINVAL);
	CHECK(core_convert(NULL, NULL, LD_LK_EX, 0) < 0);
	CHECK(core_convert(ls, NULL, LD_LK_EX, 0) < 0);
	CHECK_IS(core_unlock(NULL, NULL, 0, 0), 0);
	CHECK_IS(core_unlock(ls, NULL, 0, 0), 0);
	CHECK_IS(core_unlock(NULL, r, 0, 0), 0);
	CHECK(lm_hosts_idm(NULL, 0) < 0);
	CHECK_IS(lm_get_lockspaces_idm(NULL), 0);
	core_free_resource(r);
	core_free_lockspace(ls);
}

/* It may come when both structs are something else already. */
static void rem_resource_looks_at_nothing(void)
{
	char *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(page != MAP_FAILED);
	CHECK_IS(lm_rem_resource_idm((void *) page, (void *) (page + 512)), 0);
	CHECK_IS(lm_add_resource_idm((void *) page, (void *) (page + 512)), 0);
	munmap(page, 4096);
}

static void no_lockspace_is_found_to_adopt(void)
{
	struct list_head found = { &found, &found };

	CHECK_IS(lm_get_lockspaces_idm(&found), 0);
	CHECK(found.next == &found && found.prev == &found);
}

static void *all_at_once(void *unused)
{
	for (int i = 0; i < 3; i++) {
		parameters_are_checked_at_start();
		calls_without_a_lockspace();
		null_everywhere();
		rem_resource_looks_at_nothing();
		CHECK_IS(lm_is_running_idm(), 0);
	}
	return unused;
}

int main(void)
{
	pthread_t threads[4];

	layout_is_found();
	nothing_is_configured();
	parameters_are_checked_at_start();
	global_lockspace_starts_without_drives();
	calls_without_a_lockspace();
	null_everywhere();
	rem_resource_looks_at_nothing();
	no_lockspace_is_found_to_adopt();
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, all_at_once, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	return report();
}
