/*
 * Real locks on emulated drives, with a second host: another process with its own host id.
 *
 * The difficulties are those of lvmlockd's calls: several structs for one LV, late calls, mutexes
 * that core holds during a call, lists that change.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "check.h"
#include "core.h"
#include "drives.h"
#include "errors.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* In s, as settings.sh configures it: the shortest for drives that are not emulated. */
#define LEASE 20

#define OTHER_VG_UUID "aaaaaa-2NTq-Ysm0-7dHj-b2nS-xBcf-PfAQ9g"

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* A started host: the global lockspace and that of vg0. */
struct host {
	struct lockspace *global, *vg;
	struct resource *gl, *vglk, *lv;
};

static struct host start_host(void)
{
	struct host host = {
		core_global_lockspace(),
		core_vg_lockspace("vg0", VG_UUID, core_many_pvs(3)),
		core_resource(LD_RT_GL, "GLLK"),
		core_resource(LD_RT_VG, "VGLK"),
		core_resource(LD_RT_LV, LV_UUID),
	};

	CHECK_IS(lm_prepare_lockspace_idm(host.global), 0);
	CHECK_IS(core_add_lockspace(host.global), 0);
	CHECK_IS(lm_prepare_lockspace_idm(host.vg), 0);
	CHECK_IS(core_add_lockspace(host.vg), 0);
	return host;
}

static void stop_host(struct host *host)
{
	CHECK_IS(lm_rem_resource_idm(host->global, host->gl), 0);
	CHECK_IS(lm_rem_resource_idm(host->vg, host->lv), 0);
	CHECK_IS(lm_rem_resource_idm(host->vg, host->vglk), 0);
	CHECK_IS(lm_rem_lockspace_idm(host->vg, 0), 0);
	CHECK_IS(lm_rem_lockspace_idm(host->global, 0), 0);
	core_free_resource(host->gl);
	core_free_resource(host->vglk);
	core_free_resource(host->lv);
	core_free_lockspace(host->vg);
	core_free_lockspace(host->global);
}

static struct resource *resource_of(struct host *host, char which)
{
	return which == 'g' ? host->gl : which == 'v' ? host->vglk : host->lv;
}

static int lock(struct host *host, char which, int mode, struct val_blk *vb)
{
	struct lockspace *ls = which == 'g' ? host->global : host->vg;

	memset(vb, 0, sizeof(*vb));
	if (which == 'l')
		return core_lock_lv(ls, host->lv, mode, core_many_pvs(3));
	return core_lock(ls, resource_of(host, which), mode, vb, "", &(struct pvs) { NULL, 0 });
}

/*
 * The other host: reads one call per line from its standard input, and prints the result and the
 * version of the value block. Like lvmlockd, it lives on when it has stopped its lockspaces.
 */
static int be_other_host(void)
{
	struct host host;
	struct val_blk vb;
	char verb, which;
	int argument;

	setenv("LVMLOCKD_IDM_CONF", getenv("OTHER_HOST_CONF"), 1);
	host = start_host();
	printf("%d 0\n", failed);
	fflush(stdout);
	while (scanf(" %c %c %d", &verb, &which, &argument) == 3) {
		struct lockspace *ls = which == 'g' ? host.global : host.vg;
		struct resource *r = resource_of(&host, which);
		int result;

		memset(&vb, 0, sizeof(vb));
		if (verb == 's') {
			stop_host(&host);
			printf("%d 0\n", failed);
			fflush(stdout);
			continue;
		}
		if (verb == 'l')
			result = lock(&host, which, argument, &vb);
		else if (verb == 'c')
			result = core_convert(ls, r, argument, 0);
		else
			result = core_unlock(ls, r, argument, 0);
		printf("%d %u\n", result, vb.r_version);
		fflush(stdout);
	}
	return failed != 0;
}

static FILE *to_other, *from_other;
static pid_t other_pid;

static int other_answer(unsigned *version)
{
	unsigned unused;
	int result = 0;

	CHECK_IS(fscanf(from_other, "%d %u", &result, version ? version : &unused), 2);
	return result;
}

static int other_call(char verb, char which, int argument, unsigned *version)
{
	fprintf(to_other, "%c %c %d\n", verb, which, argument);
	fflush(to_other);
	return other_answer(version);
}

static int other_lock(char which, int mode)
{
	return other_call('l', which, mode, NULL);
}

static int other_unlock(char which, int version)
{
	return other_call('u', which, version, NULL);
}

static void start_other(char *program)
{
	int down[2], up[2];

	CHECK_IS(pipe(down), 0);
	CHECK_IS(pipe(up), 0);
	other_pid = fork();
	if (!other_pid) {
		dup2(down[0], 0);
		dup2(up[1], 1);
		close(down[0]);
		close(down[1]);
		close(up[0]);
		close(up[1]);
		execl(program, program, "other-host", NULL);
		_exit(127);
	}
	close(down[0]);
	close(up[1]);
	to_other = fdopen(down[1], "w");
	from_other = fdopen(up[0], "r");
	CHECK_IS(other_answer(NULL), 0);
}

static void stop_other(struct host *host)
{
	int status = -1, hosts;
	double begin = now();

	CHECK_IS(other_call('s', '-', 0, NULL), 0);
	/* Some drives hear of it after the call has returned, but not as late as its lease ends. */
	while ((hosts = lm_hosts_idm(host->vg, 0)) == 1 && now() - begin < LEASE / 2)
		usleep(20000);
	CHECK_IS(hosts, 0);
	fclose(to_other);
	waitpid(other_pid, &status, 0);
	CHECK_IS(status, 0);
	fclose(from_other);
}

static void locks_exclude_each_other(struct host *host)
{
	struct val_blk vb;

	for (const char *which = "gvl"; *which; which++) {
		struct lockspace *ls = *which == 'g' ? host->global : host->vg;
		struct resource *r = resource_of(host, *which);

		CHECK_IS(lock(host, *which, LD_LK_EX, &vb), 0);
		CHECK_IS(other_lock(*which, LD_LK_EX), -EAGAIN);
		CHECK_IS(other_lock(*which, LD_LK_SH), -EAGAIN);
		CHECK_IS(core_convert(ls, r, LD_LK_SH, 0), 0);
		CHECK_IS(other_lock(*which, LD_LK_SH), 0);
		/* Stays shared when it cannot become exclusive. */
		CHECK_IS(core_convert(ls, r, LD_LK_EX, 0), -EAGAIN);
		CHECK_IS(other_unlock(*which, 0), 0);
		CHECK_IS(other_lock(*which, LD_LK_EX), -EAGAIN);
		CHECK_IS(core_convert(ls, r, LD_LK_EX, 0), 0);
		CHECK_IS(other_lock(*which, LD_LK_SH), -EAGAIN);
		CHECK_IS(core_unlock(ls, r, 0, 0), 0);
		CHECK_IS(other_lock(*which, LD_LK_EX), 0);
		CHECK_IS(lock(host, *which, LD_LK_SH, &vb), -EAGAIN);
		CHECK_IS(other_unlock(*which, 0), 0);
	}
}

/*
 * Whether this host gets its own value back. It may get none, if a drive that was slow to store it
 * is among those that grant the next lock; but it never gets another one.
 */
static int value_comes_back(struct lockspace *ls, struct resource *r, unsigned r_version)
{
	struct val_blk vb = { 0 };

	CHECK_IS(core_lock(ls, r, LD_LK_EX, &vb, "", NULL), 0);
	CHECK_IS(core_unlock(ls, r, r_version, 0), 0);
	memset(&vb, 0, sizeof(vb));
	CHECK_IS(core_lock(ls, r, LD_LK_EX, &vb, "", NULL), 0);
	CHECK_IS(core_unlock(ls, r, 0, 0), 0);
	CHECK_IS(vb.flags, 0);
	CHECK_IS(vb.r_version, vb.version ? r_version : 0);
	return vb.version == VAL_BLK_VERSION;
}

/* Waits until the value is told without a lock: the last drive may be slow to store it. */
static int value_is_told(struct lockspace *ls, struct resource *r, unsigned r_version)
{
	struct val_blk vb = { 0 };

	for (int tries = 0; tries < 100 && !vb.version; tries++) {
		if (tries)
			usleep(20000);
		CHECK_IS(core_get_lvb(ls, r, &vb), 0);
		CHECK_IS(vb.flags, 0);
		CHECK_IS(vb.r_version, vb.version ? r_version : 0);
	}
	return vb.version == VAL_BLK_VERSION;
}

/* What another host has written, or may be writing, is told as zeros. */
static void values_are_read_without_a_lock(struct host *host)
{
	for (const char *which = "gv"; *which; which++) {
		struct lockspace *ls = *which == 'g' ? host->global : host->vg;
		struct resource *r = resource_of(host, *which);
		struct val_blk vb = { 0 }, told = { 0 };

		CHECK_IS(lock(host, *which, LD_LK_EX, &vb), 0);
		CHECK_IS(core_unlock(ls, r, 71, 0), 0);
		CHECK(value_is_told(ls, r, 71));
		CHECK_IS(other_lock(*which, LD_LK_EX), 0);
		CHECK_IS(core_get_lvb(ls, r, &vb), 0);
		CHECK(vb.version == 0 && vb.flags == 0 && vb.r_version == 0);
		CHECK_IS(other_unlock(*which, 0), 0);
		CHECK(value_is_told(ls, r, 71));
		/* Its own value, with the lock, as it was told with it or published since. */
		CHECK_IS(lock(host, *which, LD_LK_EX, &vb), 0);
		CHECK_IS(core_get_lvb(ls, r, &told), 0);
		CHECK(!memcmp(&told, &vb, sizeof(vb)));
		CHECK_IS(core_convert(ls, r, LD_LK_SH, 72), 0);
		CHECK(value_is_told(ls, r, 72));
		CHECK_IS(core_unlock(ls, r, 0, 0), 0);
		CHECK_IS(other_lock(*which, LD_LK_EX), 0);
		CHECK_IS(other_unlock(*which, 73), 0);
		CHECK_IS(core_get_lvb(ls, r, &vb), 0);
		CHECK(vb.version == 0 && vb.flags == 0 && vb.r_version == 0);
	}
	CHECK_IS(core_get_lvb(host->vg, host->lv, &(struct val_blk) { 9, 9, 9 }), 0);
}

static void values_are_seen(struct host *host)
{
	struct val_blk vb;
	unsigned version;

	for (const char *which = "gv"; *which; which++) {
		struct lockspace *ls = *which == 'g' ? host->global : host->vg;
		struct resource *r = resource_of(host, *which);
		int tries = 1;

		while (!value_comes_back(ls, r, 40 + tries) && tries < 10)
			tries++;
		CHECK(tries < 10);
		CHECK_IS(other_call('l', *which, LD_LK_EX, &version), 0);
		CHECK_IS(other_unlock(*which, 42), 0);
		/* Zeros say that what was known before is out of date. */
		CHECK_IS(lock(host, *which, LD_LK_SH, &vb), 0);
		CHECK(vb.version == 0 && vb.flags == 0 && vb.r_version == 0);
		CHECK_IS(core_unlock(ls, r, 0, 0), 0);
		/* Without a place for it. */
		CHECK_IS(core_lock(ls, r, LD_LK_SH, NULL, "", NULL), 0);
		CHECK_IS(core_unlock(ls, r, 0, 0), 0);
	}
}

/* Core makes a new struct for an LV while the old one still waits to be removed. */
static void several_structs_for_one_lv(struct host *host)
{
	struct resource *old = host->lv;
	struct resource *new = core_resource(LD_RT_LV, LV_UUID);

	CHECK_IS(core_lock_lv(host->vg, old, LD_LK_EX, core_many_pvs(3)), 0);
	CHECK(core_lock_lv(host->vg, new, LD_LK_EX, core_many_pvs(3)) < 0);
	CHECK_IS(core_unlock(host->vg, old, 0, 0), 0);
	CHECK_IS(core_lock_lv(host->vg, new, LD_LK_EX, core_many_pvs(3)), 0);
	CHECK_IS(lm_rem_resource_idm(host->vg, old), 0);
	CHECK_IS(other_lock('l', LD_LK_EX), -EAGAIN);
	/* Nor does a late unlock of the old one touch it. */
	CHECK_IS(core_unlock(host->vg, old, 0, 0), 0);
	CHECK_IS(other_lock('l', LD_LK_EX), -EAGAIN);
	CHECK_IS(core_unlock(host->vg, new, 0, 0), 0);
	CHECK_IS(other_lock('l', LD_LK_EX), 0);
	CHECK_IS(other_unlock('l', 0), 0);
	CHECK_IS(lm_rem_resource_idm(host->vg, new), 0);
	core_free_resource(new);
}

static void calls_out_of_order(struct host *host)
{
	struct val_blk vb;

	/* Core asks again when it lost count of the shared locks. */
	CHECK_IS(lock(host, 'l', LD_LK_SH, &vb), 0);
	CHECK_IS(lock(host, 'l', LD_LK_SH, &vb), 0);
	CHECK_IS(lock(host, 'l', LD_LK_EX, &vb), 0);
	CHECK_IS(other_lock('l', LD_LK_SH), -EAGAIN);
	CHECK_IS(core_unlock(host->vg, host->lv, 0, 0), 0);
	CHECK_IS(core_unlock(host->vg, host->lv, 0, 0), 0);
	CHECK(core_convert(host->vg, host->lv, LD_LK_EX, 0) < 0);
	CHECK_IS(other_lock('l', LD_LK_EX), 0);
	CHECK_IS(other_unlock('l', 0), 0);
}

/* A repeated start of the VG replaces the list and frees the old one. */
static void list_of_the_vg_is_read_afresh(struct host *host)
{
	struct val_blk vb;

	core_free_pvs(&host->vg->pvs);
	host->vg->pvs = core_pvs("/dev/idm-gone0", "/dev/idm-gone1", NULL);
	CHECK_IS(lock(host, 'v', LD_LK_EX, &vb), -ELOCKIO);
	CHECK_IS(core_lock_lv(host->vg, host->lv, LD_LK_EX, (struct pvs) { NULL, 0 }), -ELOCKIO);
	core_free_pvs(&host->vg->pvs);
	host->vg->pvs = core_many_pvs(3);
	CHECK_IS(lock(host, 'v', LD_LK_EX, &vb), 0);
	CHECK_IS(core_unlock(host->vg, host->vglk, 0, 0), 0);
	/* Lost in core, which keeps the number: the list from before is good enough. */
	core_free_pvs(&host->vg->pvs);
	host->vg->pvs.num = 3;
	CHECK_IS(lock(host, 'v', LD_LK_EX, &vb), 0);
	CHECK_IS(core_unlock(host->vg, host->vglk, 0, 0), 0);
	host->vg->pvs = core_many_pvs(3);
	/* An LV request that names no PV is for those of the VG. */
	CHECK_IS(core_lock_lv(host->vg, host->lv, LD_LK_EX, (struct pvs) { NULL, 0 }), 0);
	CHECK_IS(other_lock('l', LD_LK_EX), -EAGAIN);
	CHECK_IS(core_unlock(host->vg, host->lv, 0, 0), 0);
}

static void adopt_arguments(struct host *host)
{
	struct pvs pvs = core_many_pvs(3);
#if RELEASE < 25
	/* Never set for idm in these releases; whatever is there is garbage. */
	CHECK_IS(lm_lock_idm(host->vg, host->lv, LD_LK_EX, NULL, host->lv->name, &pvs, 1), 0);
#else
	CHECK_IS(lm_lock_idm(host->vg, host->lv, LD_LK_EX, NULL, host->lv->name, &pvs, 1, 0),
		 -EADOPT_NONE);
	pvs = core_many_pvs(3);
	CHECK_IS(lm_lock_idm(host->vg, host->lv, LD_LK_EX, NULL, host->lv->name, &pvs, 0, 1), 0);
#endif
	CHECK(!pvs.path);
	CHECK_IS(core_unlock(host->vg, host->lv, 0, 0), 0);
}

static void hosts_are_counted(struct host *host, char *program)
{
	/* Core holds this one. */
	pthread_mutex_lock(&host->vg->mutex);
	CHECK_IS(lm_hosts_idm(host->vg, 1), 0);
	start_other(program);
	CHECK_IS(lm_hosts_idm(host->vg, 1), 1);
	CHECK_IS(lm_rem_resource_idm(host->vg, host->lv), 0);
	pthread_mutex_unlock(&host->vg->mutex);
	stop_other(host);
}

static void drives_that_are_down(struct host *host)
{
	struct lockspace *late;
	struct val_blk vb;
	double begin;

	CHECK_IS(lock(host, 'l', LD_LK_EX, &vb), 0);
	emulator("power d0 off");
	emulator("power d1 off");
	CHECK_IS(lock(host, 'v', LD_LK_EX, &vb), -ELOCKIO);
	CHECK_IS(core_unlock(host->vg, host->vglk, 0, 0), 0);
	CHECK_IS(core_unlock(host->vg, host->lv, 0, 0), 0);
	CHECK(lm_hosts_idm(host->vg, 0) < 0);
	memset(&vb, 9, sizeof(vb));
	CHECK_IS(core_get_lvb(host->vg, host->vglk, &vb), -ELOCKIO);
	CHECK_IS(vb.r_version, 0x09090909);

	late = core_vg_lockspace("late", OTHER_VG_UUID, core_many_pvs(3));
	CHECK_IS(lm_prepare_lockspace_idm(late), -ELOCKIO);
	emulator("power d0 on");
	emulator("power d1 on");
	CHECK_IS(lm_prepare_lockspace_idm(late), 0);
	emulator("power d0 off");
	emulator("power d1 off");
	/* Core never removes what could not be added, and frees the struct. */
	CHECK(core_add_lockspace(late) < 0);
	CHECK_IS(core_lock(late, host->vglk, LD_LK_SH, &vb, "", NULL), -ENOLS);
	core_free_lockspace(late);
	emulator("power d0 on");
	emulator("power d1 on");

	emulator("hang d0 on");
	emulator("hang d1 on");
	begin = now();
	CHECK(lm_hosts_idm(host->vg, 0) < 0);
	CHECK_IS(lm_is_running_idm(), 1);
	CHECK(now() - begin < 3);
	emulator("hang d0 off");
	emulator("hang d1 off");
	CHECK_IS(lock(host, 'v', LD_LK_EX, &vb), 0);
	CHECK_IS(core_unlock(host->vg, host->vglk, 0, 0), 0);
}

/* Several VGs at once, each from a thread as in lvmlockd, and is_running in between. */
static void *use_vg(void *number)
{
	char name[16], uuid[64] = OTHER_VG_UUID;
	struct lockspace *ls;
	struct resource *vg, *lv;
	struct val_blk vb;

	sprintf(name, "vg%d", *(int *) number);
	uuid[0] = 'b' + *(int *) number;
	ls = core_vg_lockspace(name, uuid, core_many_pvs(3));
	vg = core_resource(LD_RT_VG, "VGLK");
	lv = core_resource(LD_RT_LV, LV_UUID);
	CHECK_IS(lm_prepare_lockspace_idm(ls), 0);
	CHECK_IS(core_add_lockspace(ls), 0);
	for (int i = 0; i < 5; i++) {
		CHECK_IS(core_lock(ls, vg, LD_LK_EX, &vb, "", &(struct pvs) { NULL, 0 }), 0);
		CHECK_IS(core_lock_lv(ls, lv, LD_LK_SH, core_many_pvs(3)), 0);
		CHECK_IS(lm_is_running_idm(), 1);
		CHECK_IS(core_unlock(ls, vg, i + 1, 0), 0);
		CHECK_IS(core_convert(ls, lv, LD_LK_EX, 0), 0);
		CHECK_IS(core_unlock(ls, lv, 0, 0), 0);
	}
	CHECK_IS(lm_rem_resource_idm(ls, lv), 0);
	CHECK_IS(lm_rem_lockspace_idm(ls, 0), 0);

	/* The worker thread comes late, when the struct has another name and our data is gone. */
	sprintf(ls->name, "REM:%s", name);
	ls->lm_data = (void *) 0xdead;
	CHECK_IS(lm_rem_resource_idm(ls, vg), 0);
	core_free_lockspace(ls);
	CHECK_IS(lm_rem_resource_idm(ls, vg), 0);
	core_free_resource(vg);
	core_free_resource(lv);
	return NULL;
}

static void several_vgs_at_once(void)
{
	pthread_t threads[4];
	int numbers[4];

	for (int i = 0; i < 4; i++) {
		numbers[i] = i;
		pthread_create(&threads[i], NULL, use_vg, &numbers[i]);
	}
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
	struct host host;

	if (argc > 1 && !strcmp(argv[1], "other-host"))
		return be_other_host();
	CHECK_IS(lm_data_size_idm(), 0);
	CHECK_IS(lm_is_running_idm(), 1);
	host = start_host();
	hosts_are_counted(&host, argv[0]);
	start_other(argv[0]);
	locks_exclude_each_other(&host);
	values_are_seen(&host);
	values_are_read_without_a_lock(&host);
	several_structs_for_one_lv(&host);
	calls_out_of_order(&host);
	list_of_the_vg_is_read_afresh(&host);
	stop_other(&host);
	adopt_arguments(&host);
	several_vgs_at_once();
	drives_that_are_down(&host);
	stop_host(&host);
	return report();
}
