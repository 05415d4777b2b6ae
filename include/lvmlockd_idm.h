/*
 * The functions of liblvmlockd_idm that lvmlockd calls, as lvm2 declares them from 2.03.25 on.
 * Earlier releases pass one adopt argument; the library knows. lm_get_lvb_idm is for others.
 *
 * Generated from the source of the library.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef LVMLOCKD_IDM_H
#define LVMLOCKD_IDM_H

#include <stdint.h>

/* lvmlockd's own, see lvmlockd-internal.h of lvm2. */
struct list_head;
struct lockspace;
struct pvs;
struct resource;
struct val_blk;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The number of bytes that the lock manager needs in each `struct resource`: 0.
 *
 * This is the first call, from lvmlockd's main thread, after it has become a daemon. From now on
 * the library cares for the locks that an earlier lvmlockd left behind.
 */
int lm_data_size_idm(void);

/**
 * Whether IDM can be used on this host: 1 or 0.
 */
int lm_is_running_idm(void);

/**
 * Registers a lockspace and checks that its drives can be used. lvm shows the result to the user.
 *
 * Returns 0; -212 (EARGS) if the VG's parameters cannot be used; -214 (EMANAGER) if IDM cannot be
 * used on this host; -218 (ELOCKIO) if the drives cannot be used.
 *
 * # Safety
 *
 * `ls` is NULL or a lockspace of core, and stays valid until lm_rem_lockspace_idm or until
 * lm_add_lockspace_idm fails.
 */
int lm_prepare_lockspace_idm(struct lockspace *ls);

/**
 * Starts a lockspace that was prepared. If it fails, nothing remains of the lockspace.
 *
 * Returns 0, or a negative error number, which core only logs.
 *
 * # Safety
 *
 * As lm_prepare_lockspace_idm.
 */
int lm_add_lockspace_idm(struct lockspace *ls, int adopt_only, int adopt_ok);

/**
 * Stops a lockspace. With `free_vg` its VG is being removed.
 *
 * Returns 0; -16 (EBUSY) if the lockspace stays as it is, because it has locks in use that core
 * does not know of.
 *
 * # Safety
 *
 * As lm_prepare_lockspace_idm.
 */
int lm_rem_lockspace_idm(struct lockspace *ls, int free_vg);

/**
 * Registers a resource. Core calls it only before it removes an LV that was never locked.
 *
 * Returns 0.
 *
 * # Safety
 *
 * `ls` and `r` are only used as names.
 */
int lm_add_resource_idm(struct lockspace *ls, struct resource *r);

/**
 * Forgets a resource, known or not. Never unlocks a lock that another resource holds.
 *
 * The lockspace may be gone already, so neither struct is read.
 *
 * Returns 0.
 *
 * # Safety
 *
 * `r` is only used as a name; `ls` not at all.
 */
int lm_rem_resource_idm(struct lockspace *ls, struct resource *r);

/**
 * Takes a lock. `ld_mode` is 2 (shared) or 3 (exclusive).
 *
 * For an LV, `lv_uuid` is its uuid and `pvs` the PVs that it lies on. The PVs are freed: core does
 * not need them any more (and would free them twice if the client disconnected at the wrong
 * moment). `vb_out` gets the value block: zeros where there is no value.
 *
 * Returns 0; -11 (EAGAIN) if another host holds it; -218 (ELOCKIO) if too few drives answer;
 * -22 (EINVAL) for invalid parameters; -210 (ENOLS), -217 (EVGKILLED), -223 (EADOPT_NONE), -224
 * (EADOPT_RETRY).
 *
 * # Safety
 *
 * `ls`, `r` and `lv_uuid` are NULL or belong to core, and stay valid during the call. `vb_out` is
 * NULL or writable. `pvs` is NULL or a list of strings; for an LV, strings and array come from
 * malloc.
 */
int lm_lock_idm(struct lockspace *ls,
                struct resource *r,
                int ld_mode,
                struct val_blk *vb_out,
                char *lv_uuid,
                struct pvs *pvs,
                int adopt_only,
                int adopt_ok);

/**
 * Reads the value block of a lock. The lock is neither taken nor disturbed. lvmlockd does not call
 * this function, because it gets the value with the lock.
 *
 * `vb_out` gets the value at some moment of the call. It is the value that a majority of the
 * drives shows, or that this host knows if it has the lock. It is all zero if there is no value,
 * as for the lock of an LV, or if the value is not known, for example because another host has the
 * lock.
 *
 * Returns 0; -218 (ELOCKIO) if too few drives answer; -22 (EINVAL) for invalid parameters; -210
 * (ENOLS); -217 (EVGKILLED). `vb_out` is written only with an answer of 0.
 *
 * # Safety
 *
 * `ls` and `r` are NULL or core's, for the duration of the call. `vb_out` is NULL or may be
 * written.
 */
int lm_get_lvb_idm(struct lockspace *ls, struct resource *r, struct val_blk *vb_out);

/**
 * Changes the mode of a held lock. `r_version` is a version to publish, or 0.
 *
 * Returns 0 or, with the lock in its old mode, a negative error number as lm_lock_idm.
 *
 * # Safety
 *
 * `ls` and `r` are NULL or belong to core, and stay valid during the call.
 */
int lm_convert_idm(struct lockspace *ls, struct resource *r, int ld_mode, uint32_t r_version);

/**
 * Gives up a lock. `r_version` is a version to publish, or 0; `lmu_flags` is 1 when the VG is
 * being removed.
 *
 * Always returns 0: with an error, core's state would stay wrong for ever. Drives that did not
 * take the release are followed up in the background.
 *
 * # Safety
 *
 * `ls` and `r` are NULL or belong to core, and stay valid during the call.
 */
int lm_unlock_idm(struct lockspace *ls, struct resource *r, uint32_t r_version, uint32_t lmu_flags);

/**
 * The number of other hosts that have the lockspace started, or a negative error number. `notify`
 * is not used, as in core's other lock managers.
 *
 * # Safety
 *
 * As lm_prepare_lockspace_idm.
 */
int lm_hosts_idm(struct lockspace *ls, int notify);

/**
 * Adds the lockspaces that a dead lvmlockd left behind to the list `ls_rejoin`, each as core's
 * `alloc_lockspace` makes it, with name, VG name, uuid, type and PVs. No release of core calls
 * it yet.
 *
 * Returns 0, or -218 (ELOCKIO) where core's structures are not known.
 *
 * # Safety
 *
 * `ls_rejoin` is NULL or a list of core that no other thread uses meanwhile.
 */
int lm_get_lockspaces_idm(struct list_head *ls_rejoin);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LVMLOCKD_IDM_H */
