/* Where lvm2/lvmlockd-idm.c expects lvm2's header. SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lvmlockd.h"
