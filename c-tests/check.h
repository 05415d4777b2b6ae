/*
 * Counts checks. A program ends with report(), which prints only the counts on a line.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef CHECK_H
#define CHECK_H

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/*
 * Whether the library in this process is the file that LIBRARY names in the environment, and that
 * alone. Prints what is there.
 */
static inline int has_the_library(void)
{
	const char *expected = getenv("LIBRARY");
	char line[4096], seen[4096] = "";
	FILE *maps = fopen("/proc/self/maps", "r");

	while (maps && fgets(line, sizeof(line), maps)) {
		char *path = strchr(line, '/');

		if (!path || !strstr(path, "/liblvmlockd_idm"))
			continue;
		path[strcspn(path, "\n")] = '\0';
		if (!*seen)
			printf("loaded: %s\n", path);
		strcpy(seen, path);
		if (!expected || strcmp(seen, expected)) {
			fprintf(stderr, "%s is loaded, and not %s\n", seen,
				expected ? expected : "what LIBRARY names");
			break;
		}
	}
	if (maps)
		fclose(maps);
	return expected && !strcmp(seen, expected);
}

/* Prints the numbers of checks; the result is the exit status. */
static inline int report(void)
{
	CHECK(has_the_library());
	printf("%d passed, %d failed\n", passed, failed);
	return failed != 0;
}

#endif
