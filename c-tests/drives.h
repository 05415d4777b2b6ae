/*
 * The emulated drives of a test, from the view of the test.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef DRIVES_H
#define DRIVES_H

#include "check.h"

#include <stdlib.h>

/* Tells the emulator what to do with its drives. */
static inline void emulator(const char *command)
{
	char line[512];

	snprintf(line, sizeof(line), "\"$EMULATOR\" --dir \"$DRIVES\" ctl %s >/dev/null", command);
	CHECK_IS(system(line), 0);
}

#endif
