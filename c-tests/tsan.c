/*
 * Symbols of ThreadSanitizer's runtime that rustc expects and gcc's runtime does not have under
 * these names.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#include <string.h>

void *__tsan_memcpy(void *to, const void *from, size_t size);
void *__tsan_memmove(void *to, const void *from, size_t size);
void *__tsan_memset(void *to, int byte, size_t size);

/* gcc's runtime watches the functions of libc. */
void *__tsan_memcpy(void *to, const void *from, size_t size)
{
	return memcpy(to, from, size);
}

void *__tsan_memmove(void *to, const void *from, size_t size)
{
	return memmove(to, from, size);
}

void *__tsan_memset(void *to, int byte, size_t size)
{
	return memset(to, byte, size);
}
