/*
 * Takes the place of lvm2's daemons/lvmlockd/lvmlockd-idm.c. The lm_*_idm functions are in
 * liblvmlockd_idm; this file tells it what it cannot know of the lvm2 tree that it is used with,
 * and lets the compiler check the rest. There is no code in it.
 *
 * Works in lvm2 2.03.13 and later.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "tools/tool.h"

#include "daemons/lvmlockd/lvmlockd-client.h"
#include "lvmlockd-internal.h"

#include <stddef.h>

#ifndef LOCKDIDM_SUPPORT
#error "lvm2 is not configured with --enable-lvmlockd-idm"
#endif

/* Known to liblvmlockd_idm by name. A change needs a new version. */
struct lvmlockd_idm_layout {
	char magic[8];
	uint32_t version;
	uint32_t size;
	uint32_t lockspace_pvs;		/* offset of pvs in struct lockspace */
	uint32_t adopt_args;		/* of lm_lock_idm and lm_add_lockspace_idm */
	const char *lvm_path;
};

#define ADOPT_ARGS_OF_LOCK _Generic(&lm_lock_idm, \
	int (*)(struct lockspace *, struct resource *, int, struct val_blk *, char *, \
		struct pvs *, int): 1, \
	int (*)(struct lockspace *, struct resource *, int, struct val_blk *, char *, \
		struct pvs *, int, int): 2)

#define ADOPT_ARGS_OF_ADD_LOCKSPACE _Generic(&lm_add_lockspace_idm, \
	int (*)(struct lockspace *, int): 1, \
	int (*)(struct lockspace *, int, int): 2)

extern const struct lvmlockd_idm_layout lvmlockd_idm_layout;

__attribute__((used, visibility("default")))
const struct lvmlockd_idm_layout lvmlockd_idm_layout = {
	.magic = { 'L', 'V', 'M', 'L', 'D', 'I', 'D', 'M' },
	.version = 1,
	.size = sizeof(struct lvmlockd_idm_layout),
	.lockspace_pvs = offsetof(struct lockspace, pvs),
	.adopt_args = ADOPT_ARGS_OF_LOCK,
	.lvm_path = LVM_PATH,
};

_Static_assert(ADOPT_ARGS_OF_ADD_LOCKSPACE == ADOPT_ARGS_OF_LOCK,
	       "lm_add_lockspace_idm and lm_lock_idm have the adopt arguments of one release");

/* The prototypes that are the same in every release. */
#define HAS_TYPE(function, type) \
	_Static_assert(_Generic(&function, type: 1), #function " has another prototype")

/* lvm2 declares it from 2.03.31 on; a declaration of another type would not compile. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wredundant-decls"
int lm_add_resource_idm(struct lockspace *ls, struct resource *r);
#pragma GCC diagnostic pop

HAS_TYPE(lm_data_size_idm, int (*)(void));
HAS_TYPE(lm_is_running_idm, int (*)(void));
HAS_TYPE(lm_prepare_lockspace_idm, int (*)(struct lockspace *));
HAS_TYPE(lm_rem_lockspace_idm, int (*)(struct lockspace *, int));
HAS_TYPE(lm_add_resource_idm, int (*)(struct lockspace *, struct resource *));
HAS_TYPE(lm_rem_resource_idm, int (*)(struct lockspace *, struct resource *));
HAS_TYPE(lm_convert_idm, int (*)(struct lockspace *, struct resource *, int, uint32_t));
HAS_TYPE(lm_unlock_idm, int (*)(struct lockspace *, struct resource *, uint32_t, uint32_t));
HAS_TYPE(lm_hosts_idm, int (*)(struct lockspace *, int));
HAS_TYPE(lm_get_lockspaces_idm, int (*)(struct list_head *));

/* What liblvmlockd_idm takes for granted, because it never changed. */
#define IS_AT(type, field, offset) \
	_Static_assert(offsetof(type, field) == (offset), #type "." #field " is elsewhere")

IS_AT(struct lockspace, name, 16);
IS_AT(struct lockspace, vg_name, 81);
IS_AT(struct lockspace, vg_uuid, 146);
IS_AT(struct lockspace, vg_args, 210);
IS_AT(struct lockspace, lm_type, offsetof(struct lockspace, pvs) < 368 ? 275 : 340);
IS_AT(struct resource, name, 16);
IS_AT(struct resource, type, 81);
IS_AT(struct resource, mode, 82);
IS_AT(struct resource, last_client_id, 92);
IS_AT(struct resource, locks, 104);
IS_AT(struct pvs, path, 0);
IS_AT(struct pvs, num, 8);
IS_AT(struct val_blk, version, 0);
IS_AT(struct val_blk, flags, 2);
IS_AT(struct val_blk, r_version, 4);

_Static_assert(MAX_NAME == 64, "names have another size");
_Static_assert(sizeof(((struct lockspace *) 0)->vg_uuid) == 64, "VG uuids have another size");
_Static_assert(sizeof(struct pvs) == 16 && sizeof(struct val_blk) == 8, "sizes differ");
_Static_assert(offsetof(struct lockspace, list) == 0 && LD_LM_IDM == 4,
	       "lockspaces are listed in another way");
_Static_assert(LD_LK_SH == 2 && LD_LK_EX == 3, "lock modes have other numbers");
_Static_assert(LD_RT_GL == 1 && LD_RT_VG == 2 && LD_RT_LV == 3, "resources have other numbers");
_Static_assert(LMUF_FREE_VG == 1 && VBF_REMOVED == 1 && VAL_BLK_VERSION == 0x0101,
	       "flags have other numbers");
_Static_assert(ENOLS == 210 && EARGS == 212 && EMANAGER == 214 && EVGKILLED == 217 &&
	       ELOCKIO == 218, "errors have other numbers");
