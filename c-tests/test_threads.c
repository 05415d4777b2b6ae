/*
 * Several lockspaces at once, as in lvmlockd: a thread for each, whose calls come one after the
 * other, while other threads ask whether IDM runs. One drive hangs during the test. Each thread
 * stops and starts its lockspace between rounds.
 *
 * It runs under memcheck like the other tests, and with ThreadSanitizer in tsan.sh. With RACE a
 * thread writes memory that the library reads.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "check.h"
#include "core.h"
#include "drives.h"
#include "errors.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define VGS 4
#define LVS 4
#define ROUNDS 3

/* One lockspace, and the thread that works for it. */
struct worker {
	int number;
	pthread_t thread;
	char vg_name[16], vg_uuid[64], lv_uuid[LVS][64];
};

#ifdef RACE
/* The lockspace that is about to be read. */
static _Atomic(struct lockspace *) racy;
#endif

static atomic_int rounds_done;
static atomic_int stopping;

static struct lockspace *start(struct worker *w)
{
	struct lockspace *ls = core_vg_lockspace(w->vg_name, w->vg_uuid, core_many_pvs(3));

#ifdef RACE
	atomic_store(&racy, ls);
	usleep(1000);
#endif
	CHECK_IS(lm_prepare_lockspace_idm(ls), 0);
	CHECK_IS(core_add_lockspace(ls), 0);
	return ls;
}

static void round_of(struct worker *w, int round)
{
	struct lockspace *ls = start(w);
	struct resource *vglk = core_resource(LD_RT_VG, "VGLK");
	struct resource *lv[LVS];
	struct val_blk vb = { 0 };
	struct pvs none = { NULL, 0 };

	for (int i = 0; i < LVS; i++) {
		lv[i] = core_resource(LD_RT_LV, w->lv_uuid[i]);
		CHECK_IS(core_lock_lv(ls, lv[i], LD_LK_SH, core_many_pvs(3)), 0);
	}
	for (int i = 0; i < LVS; i++) {
		CHECK_IS(core_lock(ls, vglk, LD_LK_EX, &vb, "", &none), 0);
		CHECK_IS(core_convert(ls, lv[i], LD_LK_EX, 0), 0);
		CHECK_IS(core_convert(ls, lv[i], LD_LK_SH, 0), 0);
		CHECK_IS(core_unlock(ls, vglk, 10 * round + i + 1, 0), 0);
		CHECK_IS(lm_hosts_idm(ls, 0), 0);
	}
	for (int i = 0; i < LVS; i++) {
		/* Every other one is still held when the lockspace goes. */
		if (i % 2)
			CHECK_IS(core_unlock(ls, lv[i], 0, 0), 0);
		CHECK_IS(lm_rem_resource_idm(ls, lv[i]), 0);
		core_free_resource(lv[i]);
	}
	CHECK_IS(lm_rem_resource_idm(ls, vglk), 0);
	CHECK_IS(lm_rem_lockspace_idm(ls, 0), 0);
	core_free_resource(vglk);
#ifndef RACE
	core_free_lockspace(ls);
#endif
	atomic_fetch_add(&rounds_done, 1);
}

static void *work(void *argument)
{
	struct worker *w = argument;

	for (int round = 0; round < ROUNDS; round++)
		round_of(w, round);
	return NULL;
}

/* lvmlockd's main thread, which answers clients meanwhile. */
static void *ask(void *argument)
{
	(void) argument;
	while (!atomic_load(&stopping)) {
#ifdef RACE
		struct lockspace *ls = atomic_load(&racy);

		if (ls)
			ls->vg_name[0] = 'v';
		usleep(100);
#else
		CHECK(lm_is_running_idm());
		usleep(20000);
#endif
	}
	return NULL;
}

int main(void)
{
	static struct worker workers[VGS];
	struct lockspace *global = core_global_lockspace();
	struct resource *gl = core_resource(LD_RT_GL, "GLLK");
	struct val_blk vb = { 0 };
	struct pvs none = { NULL, 0 };
	pthread_t asker;

	CHECK_IS(lm_prepare_lockspace_idm(global), 0);
	CHECK_IS(core_add_lockspace(global), 0);
	CHECK_IS(pthread_create(&asker, NULL, ask, NULL), 0);
	for (int v = 0; v < VGS; v++) {
		struct worker *w = &workers[v];

		w->number = v;
		snprintf(w->vg_name, sizeof(w->vg_name), "vg%d", v);
		snprintf(w->vg_uuid, sizeof(w->vg_uuid),
			 "vgvgv%d-2NTq-Ysm0-7dHj-b2nS-xBcf-PfAQ9g", v);
		for (int i = 0; i < LVS; i++)
			snprintf(w->lv_uuid[i], sizeof(w->lv_uuid[i]),
				 "lvlv%d%d-QmZe-9Xa2-Lw0T-uYb7-cN5r-Vt8HsK", v, i);
		CHECK_IS(pthread_create(&w->thread, NULL, work, w), 0);
	}
	while (atomic_load(&rounds_done) < VGS)
		usleep(10000);
	emulator("hang d1 on");
	for (int i = 0; i < 5; i++) {
		CHECK_IS(core_lock(global, gl, i % 2 ? LD_LK_SH : LD_LK_EX, &vb, "", &none), 0);
		CHECK_IS(core_unlock(global, gl, i % 2 ? 0 : i + 1, 0), 0);
	}
	while (atomic_load(&rounds_done) < 2 * VGS)
		usleep(10000);
	emulator("hang d1 off");
	for (int v = 0; v < VGS; v++)
		CHECK_IS(pthread_join(workers[v].thread, NULL), 0);
	atomic_store(&stopping, 1);
	CHECK_IS(pthread_join(asker, NULL), 0);
	CHECK_IS(lm_rem_resource_idm(global, gl), 0);
	CHECK_IS(lm_rem_lockspace_idm(global, 0), 0);
	core_free_resource(gl);
	core_free_lockspace(global);
	CHECK(!core_logged("internal error"));
	return report();
}
