/*
 * lvmlockd's error numbers.
 *
 * SPDX-License-Identifier: LGPL-2.1-or-later
 */

#ifndef ERRORS_H
#define ERRORS_H

#include <errno.h>

enum {
	ENOLS = 210,
	EARGS = 212,
	EMANAGER = 214,
	EVGKILLED = 217,
	ELOCKIO = 218,
	EADOPT_NONE = 223,
};

#endif
