# Finds Arrow and Parquet and makes one target of them: penstock::arrow (and penstock::arrow_python
# where Arrow comes from the pyarrow wheel). Used by Penstock's own build and by its installed package.
#
#   PENSTOCK_ARROW=pyarrow   the headers and libraries in the pyarrow wheel of Python3_EXECUTABLE (default)
#   PENSTOCK_ARROW=system    an Arrow that find_package() finds
set(PENSTOCK_ARROW "pyarrow" CACHE STRING "Where Arrow comes from: pyarrow or system")

if(TARGET penstock::arrow)
  return()
endif()
add_library(penstock::arrow INTERFACE IMPORTED)

if(PENSTOCK_ARROW STREQUAL "system")
  find_package(Arrow REQUIRED)
  find_package(Parquet REQUIRED)
  find_package(ArrowDataset REQUIRED)
  find_package(ArrowCompute QUIET)
  target_link_libraries(penstock::arrow INTERFACE
    Arrow::arrow_shared Parquet::parquet_shared ArrowDataset::arrow_dataset_shared
    $<TARGET_NAME_IF_EXISTS:ArrowCompute::arrow_compute_shared>)
  return()
endif()

find_package(Python3 REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND ${Python3_EXECUTABLE} -c "import pyarrow; print(pyarrow.__version__); print(pyarrow.get_include())"
  OUTPUT_VARIABLE pyarrow_facts RESULT_VARIABLE pyarrow_result ERROR_QUIET)
if(NOT pyarrow_result EQUAL 0)
  message(FATAL_ERROR
    "Penstock builds on Arrow as it ships in the pyarrow wheel, and '${Python3_EXECUTABLE}' has no pyarrow.\n"
    "Either: ${Python3_EXECUTABLE} -m pip install 'pyarrow==26.*'   (and pass -DPython3_EXECUTABLE=...)\n"
    "or:     -DPENSTOCK_ARROW=system with an Arrow C++ that CMake finds")
endif()
string(REGEX MATCH "^([0-9]+)\\.([^\n]*)\n([^\n]+)" _ "${pyarrow_facts}")
set(pyarrow_major ${CMAKE_MATCH_1})
set(pyarrow_include ${CMAKE_MATCH_3})
if(NOT pyarrow_major EQUAL 26)
  message(FATAL_ERROR "Penstock needs pyarrow 26, found ${pyarrow_major}: ${Python3_EXECUTABLE} -m pip install 'pyarrow==26.*'")
endif()
get_filename_component(PENSTOCK_PYARROW_DIR ${pyarrow_include} DIRECTORY)

# The wheel has no unversioned links and no CMake files: each library is imported by its full name.
function(penstock_import_wheel_library target file)
  add_library(${target} SHARED IMPORTED)
  set_target_properties(${target} PROPERTIES
    IMPORTED_LOCATION ${PENSTOCK_PYARROW_DIR}/${file}
    INTERFACE_INCLUDE_DIRECTORIES ${pyarrow_include}
    INTERFACE_SYSTEM_INCLUDE_DIRECTORIES ${pyarrow_include})
endfunction()
set(abi ${pyarrow_major}00)
penstock_import_wheel_library(penstock::wheel_arrow libarrow.so.${abi})
penstock_import_wheel_library(penstock::wheel_compute libarrow_compute.so.${abi})
penstock_import_wheel_library(penstock::wheel_acero libarrow_acero.so.${abi})
penstock_import_wheel_library(penstock::wheel_parquet libparquet.so.${abi})
penstock_import_wheel_library(penstock::wheel_dataset libarrow_dataset.so.${abi})
penstock_import_wheel_library(penstock::arrow_python libarrow_python.so.${abi})
target_link_libraries(penstock::arrow INTERFACE
  penstock::wheel_dataset penstock::wheel_parquet penstock::wheel_acero
  penstock::wheel_compute penstock::wheel_arrow)
