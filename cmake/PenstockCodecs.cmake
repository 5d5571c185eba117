# Finds the libraries that decode images and makes one target of them: penstock::codecs. Used by Penstock's own build and
# by its installed package.
if(TARGET penstock::codecs)
  return()
endif()

set(penstock_codecs_help
  "Debian, Ubuntu: apt-get install libjpeg-dev libpng-dev\n"
  "Fedora:         dnf install libjpeg-turbo-devel libpng-devel\n"
  "conda:          conda install -c conda-forge libjpeg-turbo libpng")
find_package(JPEG QUIET)
find_package(PNG QUIET)
if(NOT JPEG_FOUND OR NOT PNG_FOUND)
  message(FATAL_ERROR "Penstock decodes images with libjpeg-turbo and libpng, whose headers are not found.\n"
    ${penstock_codecs_help})
endif()

# Only libjpeg-turbo decodes a part of an image.
include(CheckCXXSourceCompiles)
set(CMAKE_REQUIRED_LIBRARIES JPEG::JPEG)
check_cxx_source_compiles("
  #include <cstdio>
  #include <jpeglib.h>
  int main() { jpeg_decompress_struct jpeg{}; JDIMENSION left = 0, width = 0; jpeg_crop_scanline(&jpeg, &left, &width);
               return static_cast<int>(jpeg_skip_scanlines(&jpeg, 1)) + JCS_EXT_RGBX; }" PENSTOCK_JPEG_IS_TURBO)
unset(CMAKE_REQUIRED_LIBRARIES)
if(NOT PENSTOCK_JPEG_IS_TURBO)
  message(FATAL_ERROR "The JPEG library in ${JPEG_INCLUDE_DIRS} is not libjpeg-turbo 1.5 or newer, which Penstock needs.\n"
    ${penstock_codecs_help})
endif()
add_library(penstock::codecs INTERFACE IMPORTED)
target_link_libraries(penstock::codecs INTERFACE JPEG::JPEG PNG::PNG)
