/*
 * The steps of lvmlockd's core around its calls, for tests that imitate it.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef CORE_H
#define CORE_H

#include "lvmlockd.h"

#define VG_UUID "Fw4xZP-2NTq-Ysm0-7dHj-b2nS-xBcf-PfAQ9g"
#define LV_UUID "o3Pd1k-QmZe-9Xa2-Lw0T-uYb7-cN5r-Vt8HsK"

/* Bytes that core gives to another lock manager in each resource, after ours. */
#define FOREIGN_DATA 40

/* A list of PVs from malloc. The last argument is NULL. */
struct pvs core_pvs(const char *path, ...) __attribute__((sentinel));
/* The list n times /dev/idm0, /dev/idm1 and so on. */
struct pvs core_many_pvs(int n);
void core_free_pvs(struct pvs *pvs);

/* A lockspace and a resource as core makes them, from malloc; each freed by the other function. */
struct lockspace *core_vg_lockspace(const char *vg_name, const char *vg_uuid, struct pvs pvs);
struct lockspace *core_global_lockspace(void);
void core_free_lockspace(struct lockspace *ls);
struct resource *core_resource(int type, const char *name);
void core_free_resource(struct resource *r);

/*
 * The calls, as core makes them in this release: without adopt arguments, and in releases that pass
 * one adopt argument with garbage in place of the second one. Each checks that the library wrote
 * nothing of core's memory except the allowed parts.
 */
int core_lock(struct lockspace *ls, struct resource *r, int mode, struct val_blk *vb,
	      char *lv_uuid, struct pvs *pvs);
int core_get_lvb(struct lockspace *ls, struct resource *r, struct val_blk *vb);
int core_add_lockspace(struct lockspace *ls);
int core_convert(struct lockspace *ls, struct resource *r, int mode, uint32_t r_version);
int core_unlock(struct lockspace *ls, struct resource *r, uint32_t r_version, uint32_t flags);

/* Locks an LV with a PV list of its own and checks that the list was taken. */
int core_lock_lv(struct lockspace *ls, struct resource *r, int mode, struct pvs pvs);

/* Whether a line that contains the text was logged. */
int core_logged(const char *text);
/* How many lines were logged at this level. */
int core_logged_at(int level);

#endif
