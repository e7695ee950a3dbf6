# Everything comes from Debian 13 packages (tools/packages.txt); nothing is downloaded.
find_package(PkgConfig REQUIRED)
find_package(fmt CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
find_package(TBB CONFIG REQUIRED)
find_package(hwy CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(CLI11 CONFIG REQUIRED)
find_package(libzip CONFIG REQUIRED)
find_package(WebP CONFIG REQUIRED)
find_package(JPEG REQUIRED)
find_package(PNG REQUIRED)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(RE2 REQUIRED IMPORTED_TARGET re2)
find_library(LAPACKE_LIBRARY lapacke REQUIRED)
find_library(OPENBLAS_LIBRARY openblas REQUIRED)

find_package(ONNX CONFIG REQUIRED)
# Generated protobuf headers do not survive our warnings: they come in as system headers.
add_library(onnxpress_onnx INTERFACE)
target_link_libraries(onnxpress_onnx INTERFACE ONNX::onnx protobuf::libprotobuf)
target_compile_definitions(onnxpress_onnx INTERFACE ONNX_ML=1 ONNX_NAMESPACE=onnx)

if(ONNXRUNTIME_ROOT)
  add_library(onnxruntime::onnxruntime SHARED IMPORTED)
  set_target_properties(onnxruntime::onnxruntime PROPERTIES
    IMPORTED_LOCATION ${ONNXRUNTIME_ROOT}/lib/libonnxruntime.so
    INTERFACE_INCLUDE_DIRECTORIES ${ONNXRUNTIME_ROOT}/include)
else()
  find_package(onnxruntime CONFIG REQUIRED)
endif()
if(ONNXPRESS_TESTS)
  find_package(Catch2 3 CONFIG REQUIRED)
endif()
