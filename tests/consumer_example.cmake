# Installs Penstock to a scratch folder, builds examples/cpp_consumer against it as a stranger would, and runs it.
#   cmake -DBUILD_DIR=... -DSOURCE_DIR=... -DPYTHON=... -DCXX=... -DBUILD_TYPE=... -P consumer_example.cmake
cmake_minimum_required(VERSION 3.25)

set(scratch ${BUILD_DIR}/consumer_example)
file(REMOVE_RECURSE ${scratch})
file(MAKE_DIRECTORY ${scratch})

function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

# Whoever links an instrumented library has to be instrumented too.
file(STRINGS ${BUILD_DIR}/CMakeCache.txt sanitizer REGEX "^PENSTOCK_SANITIZER:[A-Z]+=.+")
set(flags "")
if(sanitizer)
  string(REGEX REPLACE ".*=" "-fsanitize=" flags "${sanitizer}")
endif()

run(${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${scratch}/prefix)
run(${CMAKE_COMMAND} -S ${SOURCE_DIR}/examples/cpp_consumer -B ${scratch}/build -G Ninja
  -DCMAKE_PREFIX_PATH=${scratch}/prefix -DPython3_EXECUTABLE=${PYTHON} -DCMAKE_CXX_COMPILER=${CXX}
  -DCMAKE_BUILD_TYPE=${BUILD_TYPE} -DCMAKE_CXX_FLAGS=${flags})
run(${CMAKE_COMMAND} --build ${scratch}/build)

file(WRITE ${scratch}/make.py [[
import sys
import pyarrow as pa, pyarrow.parquet as pq
for i in range(3):
    table = pa.table({"x": range(1000 + i), "y": [0.5] * (1000 + i)})
    pq.write_table(table, f"{sys.argv[1]}/part-{i}.parquet", row_group_size=300)
]])
file(MAKE_DIRECTORY ${scratch}/data)
run(${PYTHON} ${scratch}/make.py ${scratch}/data)

execute_process(COMMAND ${scratch}/build/count_rows ${scratch}/data
  OUTPUT_VARIABLE output OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
if(NOT output STREQUAL "3003 rows")
  message(FATAL_ERROR "count_rows said '${output}', not '3003 rows'")
endif()

execute_process(COMMAND ${scratch}/build/count_rows ${scratch}/no-such-file.parquet
  RESULT_VARIABLE code ERROR_VARIABLE complaint)
if(NOT code EQUAL 1 OR NOT complaint MATCHES "no-such-file.parquet")
  message(FATAL_ERROR "a missing file gave exit code '${code}' and '${complaint}'")
endif()
