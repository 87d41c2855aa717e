/* cmocka with the headers that it wants included before it. */
#ifndef SLUICE_TESTS_UNIT_CMOCKA_ALL_H
#define SLUICE_TESTS_UNIT_CMOCKA_ALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#endif
