/*
 * Counts checks. A program ends with report(), which prints only the counts on a line.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef CHECK_H
#define CHECK_H

#include <stdatomic.h>
#include <stdio.h>

static atomic_int passed, failed;

/* Is true. */
#define CHECK(condition) check_((condition) ? 1 : 0, 1, #condition, __FILE__, __LINE__)

/* Is this number. */
#define CHECK_IS(expression, expected) \
	check_((expression), (expected), #expression, __FILE__, __LINE__)

static inline int check_(long found, long expected, const char *what, const char *file, int line)
{
	if (found == expected) {
		atomic_fetch_add(&passed, 1);
		return 1;
	}
	atomic_fetch_add(&failed, 1);
	fprintf(stderr, "%s:%d: %s is %ld, not %ld\n", file, line, what, found, expected);
	return 0;
}

static inline int report(void)
{
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}

#endif
