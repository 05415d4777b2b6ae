/*
 * Stand-in for lvmlockd: the symbols that it exports, and the way it calls a lock manager.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include "core.h"
#include "check.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

int daemon_test;
int gl_use_idm;

#ifndef NAMED_RELEASE
#define NAMED_RELEASE RELEASE
#endif
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

#if NAMED_RELEASE
/* lvmlockd has this text in its --version option. */
__attribute__((used))
static const char version[] = "lvmlockd version: 2.03." TEXT(NAMED_RELEASE) "(2) (2026-01-01)";
#endif

static pthread_mutex_t log_mutex = PTHREAD_MUTEX_INITIALIZER;
static char log_text[1 << 20];
static size_t log_size;
static int log_levels[8];

void log_level(int level, const char *format, ...)
{
	char line[1024];
	va_list arguments;
	int size;

	va_start(arguments, format);
	size = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);

	/* 255 bytes with a time stamp of ten digits and a space, and a newline. */
	CHECK(size <= 243);
	CHECK(!strncmp(line, "idm: ", 5));
	CHECK(!strchr(line, '\n'));
	CHECK(level == LOG_ERR || level == LOG_WARNING || level == LOG_DEBUG);

	pthread_mutex_lock(&log_mutex);
	log_levels[level & 7]++;
	if (log_size + size + 2 < sizeof(log_text))
		log_size += sprintf(log_text + log_size, "%s\n", line);
	pthread_mutex_unlock(&log_mutex);
	if (getenv("SHOW_LOG"))
		fprintf(stderr, "%d %s\n", level, line);
}

int core_logged(const char *text)
{
	int found;

	pthread_mutex_lock(&log_mutex);
	found = strstr(log_text, text) != NULL;
	pthread_mutex_unlock(&log_mutex);
	return found;
}

int core_logged_at(int level)
{
	int lines;

	pthread_mutex_lock(&log_mutex);
	lines = log_levels[level & 7];
	pthread_mutex_unlock(&log_mutex);
	return lines;
}

static void empty_list(struct list_head *head)
{
	head->next = head->prev = head;
}

#ifdef HIDE_ALLOC_LOCKSPACE
#define alloc_lockspace hidden_alloc_lockspace
struct lockspace *hidden_alloc_lockspace(void);
#endif

struct lockspace *alloc_lockspace(void)
{
	struct lockspace *ls = calloc(1, sizeof(*ls));

	empty_list(&ls->actions);
#ifndef FOREIGN_LAYOUT
	empty_list(&ls->resources);
#endif
#if RELEASE >= 31
	empty_list(&ls->dispose);
#endif
#if RELEASE >= 37
	empty_list(&ls->fence_history);
#endif
	pthread_mutex_init(&ls->mutex, NULL);
	pthread_cond_init(&ls->cond, NULL);
	return ls;
}

struct pvs core_pvs(const char *path, ...)
{
	struct pvs pvs = { calloc(16, sizeof(char *)), 0 };
	va_list arguments;

	va_start(arguments, path);
	for (; path; path = va_arg(arguments, const char *))
		pvs.path[pvs.num++] = strdup(path);
	va_end(arguments);
	return pvs;
}

struct pvs core_many_pvs(int n)
{
	struct pvs pvs = { calloc(n, sizeof(char *)), n };
	char path[32];

	for (int i = 0; i < n; i++) {
		sprintf(path, "/dev/idm%d", i);
		pvs.path[i] = strdup(path);
	}
	return pvs;
}

void core_free_pvs(struct pvs *pvs)
{
	for (int i = 0; pvs->path && i < pvs->num; i++)
		free(pvs->path[i]);
	free(pvs->path);
	pvs->path = NULL;
	pvs->num = 0;
}

struct lockspace *core_vg_lockspace(const char *vg_name, const char *vg_uuid, struct pvs pvs)
{
	struct lockspace *ls = alloc_lockspace();

	snprintf(ls->name, sizeof(ls->name), "lvm_%s", vg_name);
	snprintf(ls->vg_name, sizeof(ls->vg_name), "%s", vg_name);
	snprintf(ls->vg_uuid, sizeof(ls->vg_uuid), "%s", vg_uuid);
	ls->lm_type = LD_LM_IDM;
	ls->pvs = pvs;
	return ls;
}

struct lockspace *core_global_lockspace(void)
{
	struct lockspace *ls = alloc_lockspace();

	strcpy(ls->name, "lvm_global");
	ls->lm_type = LD_LM_IDM;
	return ls;
}

void core_free_lockspace(struct lockspace *ls)
{
	core_free_pvs(&ls->pvs);
	free(ls);
}

struct resource *core_resource(int type, const char *name)
{
	size_t ours = lm_data_size_idm();
	struct resource *r = calloc(1, sizeof(*r) + ours + FOREIGN_DATA);

	memset(r->lm_data + ours, 0xa5, FOREIGN_DATA);
	snprintf(r->name, sizeof(r->name), "%s", name);
	r->type = type;
	r->use_vb = type != LD_RT_LV;
	empty_list(&r->locks);
	empty_list(&r->actions);
	return r;
}

void core_free_resource(struct resource *r)
{
	size_t ours = lm_data_size_idm();

	for (int i = 0; i < FOREIGN_DATA; i++)
		CHECK_IS((unsigned char) r->lm_data[ours + i], 0xa5);
	free(r);
}

/* Core's structs before a call, to be compared with what they are after it. */
struct before {
	struct lockspace ls;
	struct resource r;
};

static void remember(struct before *before, const struct lockspace *ls, const struct resource *r)
{
	if (ls)
		memcpy(&before->ls, ls, sizeof(*ls));
	if (r)
		memcpy(&before->r, r, sizeof(*r));
}

static void compare(const struct before *before, const struct lockspace *ls,
		    const struct resource *r)
{
	if (ls)
		CHECK(!memcmp(&before->ls, ls, sizeof(*ls)));
	if (r)
		CHECK(!memcmp(&before->r, r, sizeof(*r)));
}

int core_lock(struct lockspace *ls, struct resource *r, int mode, struct val_blk *vb,
	      char *lv_uuid, struct pvs *pvs)
{
	struct before before;
	int result;

	remember(&before, ls, r);
#if RELEASE < 25
	{
		/* What a caller that knows seven arguments leaves where the eighth would be. */
		int (*lock)(struct lockspace *, struct resource *, int, struct val_blk *, char *,
			    struct pvs *, int, int) = (void *) lm_lock_idm;
		result = lock(ls, r, mode, vb, lv_uuid, pvs, 0, 0x7fff1234);
	}
#else
	result = lm_lock_idm(ls, r, mode, vb, lv_uuid, pvs, 0, 0);
#endif
	compare(&before, ls, r);
	CHECK(result <= 0 && result != -49 && result != -1000);
	return result;
}

int core_get_lvb(struct lockspace *ls, struct resource *r, struct val_blk *vb)
{
	struct before before;
	int result;

	remember(&before, ls, r);
	result = lm_get_lvb_idm(ls, r, vb);
	compare(&before, ls, r);
	CHECK(result <= 0 && result != -49 && result != -1000);
	return result;
}

int core_add_lockspace(struct lockspace *ls)
{
	struct before before;
	int result;

	remember(&before, ls, NULL);
#if RELEASE < 25
	{
		int (*add)(struct lockspace *, int, int) = (void *) lm_add_lockspace_idm;
		result = add(ls, 0, 0x7fff1234);
	}
#else
	result = lm_add_lockspace_idm(ls, 0, 0);
#endif
	compare(&before, ls, NULL);
	CHECK(result <= 0);
	return result;
}

int core_convert(struct lockspace *ls, struct resource *r, int mode, uint32_t r_version)
{
	struct before before;
	int result;

	remember(&before, ls, r);
	result = lm_convert_idm(ls, r, mode, r_version);
	compare(&before, ls, r);
	CHECK(result <= 0);
	return result;
}

int core_unlock(struct lockspace *ls, struct resource *r, uint32_t r_version, uint32_t flags)
{
	struct before before;
	int result;

	remember(&before, ls, r);
	result = lm_unlock_idm(ls, r, r_version, flags);
	compare(&before, ls, r);
	return result;
}

int core_lock_lv(struct lockspace *ls, struct resource *r, int mode, struct pvs pvs)
{
	struct val_blk vb = { 0 };
	int result = core_lock(ls, r, mode, &vb, r->name, &pvs);

	/* Valgrind finds paths that were freed twice or not at all. */
	CHECK(!pvs.path);
	CHECK_IS(pvs.num, 0);
	return result;
}
