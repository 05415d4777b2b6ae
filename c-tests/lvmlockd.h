/*
 * Stand-in for lvmlockd-internal.h of lvm2 2.03.RELEASE: the parts that the library uses, with the
 * layout of that release. The assertions at the end contain the measured offsets.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef LVMLOCKD_H
#define LVMLOCKD_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#ifndef RELEASE
#error "RELEASE is not defined"
#endif

#define LOCKDIDM_SUPPORT 1
#define MAX_NAME 64
#define MAX_ARGS 64
#define VAL_BLK_VERSION 0x0101
#define VBF_REMOVED 1
#define LMUF_FREE_VG 1

enum { LD_LM_IDM = 4 };
enum { LD_RT_GL = 1, LD_RT_VG, LD_RT_LV };
enum { LD_LK_IV = -1, LD_LK_UN, LD_LK_NL, LD_LK_SH, LD_LK_EX };

struct list_head {
	struct list_head *next, *prev;
};

struct pvs {
	char **path;
	int num;
};

struct val_blk {
	uint16_t version;
	uint16_t flags;
	uint32_t r_version;
};

struct lockspace {
	struct list_head list;
	char name[MAX_NAME + 1];
	char vg_name[MAX_NAME + 1];
	char vg_uuid[64];
	char vg_args[MAX_ARGS + 1];
#if RELEASE < 28
	char vg_sysid[MAX_NAME + 1];
#endif
	int8_t lm_type;
	void *lm_data;
#if RELEASE >= 37
	uint32_t lock_args_flags;
#endif
#if RELEASE >= 33
	uint32_t host_id;
#else
	uint64_t host_id;
#endif
#if RELEASE >= 34
	uint64_t generation;
#endif
	uint64_t free_lock_offset;
#if RELEASE < 27
	int free_lock_sizes[2];
#endif
	struct pvs pvs;
	uint32_t start_client_id;
	pthread_t thread;
	pthread_cond_t cond;
	pthread_mutex_t mutex;
	uint32_t flags;
	struct list_head actions;
	struct list_head resources;
#if RELEASE >= 31
	struct list_head dispose;
#endif
#if RELEASE >= 37
	struct list_head fence_history;
#endif
};

struct resource {
	struct list_head list;
	char name[MAX_NAME + 1];
	int8_t type;
	int8_t mode;
	int8_t adopt_mode;
	uint32_t sh_count;
	uint32_t version;
	uint32_t last_client_id;
#if RELEASE >= 31
	uint32_t dispose_client_id;
#endif
	uint32_t lm_init : 1;
	uint32_t adopt : 1;
	uint32_t version_zero_valid : 1;
	uint32_t use_vb : 1;
#if RELEASE >= 40
	uint32_t test_remote_ex : 1;
	uint32_t test_remote_sh : 1;
#endif
	struct list_head locks;
	struct list_head actions;
#if RELEASE >= 37
	struct list_head fence_wait_actions;
#endif
	char lv_args[MAX_ARGS + 1];
	char lm_data[];
};

/* What lvmlockd exports. */
void log_level(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));
struct lockspace *alloc_lockspace(void);
extern int daemon_test;
extern int gl_use_idm;

#if RELEASE >= 25
/* The prototypes are those of the library's own header. */
#include "lvmlockd_idm.h"
#else
int lm_data_size_idm(void);
int lm_is_running_idm(void);
int lm_prepare_lockspace_idm(struct lockspace *ls);
int lm_add_lockspace_idm(struct lockspace *ls, int adopt);
int lm_rem_lockspace_idm(struct lockspace *ls, int free_vg);
int lm_add_resource_idm(struct lockspace *ls, struct resource *r);
int lm_rem_resource_idm(struct lockspace *ls, struct resource *r);
int lm_lock_idm(struct lockspace *ls, struct resource *r, int ld_mode, struct val_blk *vb_out,
		char *lv_uuid, struct pvs *pvs, int adopt);
int lm_get_lvb_idm(struct lockspace *ls, struct resource *r, struct val_blk *vb_out);
int lm_convert_idm(struct lockspace *ls, struct resource *r, int ld_mode, uint32_t r_version);
int lm_unlock_idm(struct lockspace *ls, struct resource *r, uint32_t r_version,
		  uint32_t lmu_flags);
int lm_hosts_idm(struct lockspace *ls, int notify);
int lm_get_lockspaces_idm(struct list_head *ls_rejoin);
#endif

#define AT(type, field, offset) \
	_Static_assert(offsetof(type, field) == (offset), #type "." #field)

AT(struct lockspace, vg_uuid, 146);
AT(struct lockspace, vg_args, 210);
AT(struct resource, type, 81);
AT(struct resource, last_client_id, 92);
AT(struct resource, locks, 104);
#if RELEASE < 27
_Static_assert(sizeof(struct lockspace) == 536, "G1");
AT(struct lockspace, pvs, 376);
AT(struct lockspace, actions, 504);
#elif RELEASE == 27
_Static_assert(sizeof(struct lockspace) == 528, "G2");
AT(struct lockspace, pvs, 368);
AT(struct lockspace, actions, 496);
#elif RELEASE < 31
_Static_assert(sizeof(struct lockspace) == 464, "G3");
AT(struct lockspace, pvs, 304);
AT(struct lockspace, actions, 432);
#elif RELEASE < 34
_Static_assert(sizeof(struct lockspace) == 480, "G4, G5");
AT(struct lockspace, pvs, 304);
AT(struct lockspace, actions, 432);
#elif RELEASE < 37
_Static_assert(sizeof(struct lockspace) == 488, "G6");
AT(struct lockspace, pvs, 312);
AT(struct lockspace, actions, 440);
#else
_Static_assert(sizeof(struct lockspace) == 504, "G7, G8");
AT(struct lockspace, pvs, 312);
AT(struct lockspace, actions, 440);
AT(struct lockspace, host_id, 292);
AT(struct lockspace, fence_history, 488);
#endif
#if RELEASE < 37
AT(struct resource, lm_data, 201);
#else
AT(struct resource, lm_data, 217);
#endif

#endif
