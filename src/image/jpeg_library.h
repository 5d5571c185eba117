#pragma once

// jpeglib.h uses what <cstdio> declares, and jerror.h what jpeglib.h does.
// clang-format off
#include <cstddef>
#include <cstdio>
#include <jpeglib.h>
#include <jerror.h>
// clang-format on
