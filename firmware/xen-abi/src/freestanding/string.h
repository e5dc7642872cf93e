/* Included by a Xen header for its inline helpers, none of which is used. */
#pragma once
#include <stddef.h>
void *memcpy(void *, const void *, size_t);
