/*
 * What every library with the soname liblvmlockd_idm.so.0 has, from the version above it on.
 * debian/tests/abi compares the installed library with it. A new function is added here and in
 * debian/liblvmlockd-idm0.symbols; what is here is not changed without a new soname.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include <stdint.h>

struct list_head;
struct lockspace;
struct pvs;
struct resource;
struct val_blk;

/* 0.1.0 */
int lm_data_size_idm(void);
int lm_is_running_idm(void);
int lm_prepare_lockspace_idm(struct lockspace *ls);
int lm_add_lockspace_idm(struct lockspace *ls, int adopt_only, int adopt_ok);
int lm_rem_lockspace_idm(struct lockspace *ls, int free_vg);
int lm_add_resource_idm(struct lockspace *ls, struct resource *r);
int lm_rem_resource_idm(struct lockspace *ls, struct resource *r);
int lm_lock_idm(struct lockspace *ls, struct resource *r, int ld_mode, struct val_blk *vb_out,
		char *lv_uuid, struct pvs *pvs, int adopt_only, int adopt_ok);
int lm_get_lvb_idm(struct lockspace *ls, struct resource *r, struct val_blk *vb_out);
int lm_convert_idm(struct lockspace *ls, struct resource *r, int ld_mode, uint32_t r_version);
int lm_unlock_idm(struct lockspace *ls, struct resource *r, uint32_t r_version, uint32_t lmu_flags);
int lm_hosts_idm(struct lockspace *ls, int notify);
int lm_get_lockspaces_idm(struct list_head *ls_rejoin);
