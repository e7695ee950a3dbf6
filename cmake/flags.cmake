include(CheckPIESupported)
check_pie_supported(LANGUAGES CXX)

add_library(onnxpress_flags INTERFACE)
target_compile_options(onnxpress_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion
  # The numeric core gives the same bits with and without fused multiply-add.
  -ffp-contract=off -fstack-protector-strong -fno-plt)
target_compile_definitions(onnxpress_flags INTERFACE _GLIBCXX_ASSERTIONS)
if(ONNXPRESS_WERROR)
  target_compile_options(onnxpress_flags INTERFACE -Werror)
endif()
if(NOT ONNXPRESS_SANITIZE AND CMAKE_BUILD_TYPE STREQUAL "Release")
  # An option, not a definition: definitions come first on the command line, and -U would undo it.
  target_compile_options(onnxpress_flags INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 -fstack-clash-protection
                                                   -ftrivial-auto-var-init=zero)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    target_compile_options(onnxpress_flags INTERFACE -fcf-protection)
  endif()
endif()
if(ONNXPRESS_SANITIZE)
  target_compile_options(onnxpress_flags INTERFACE -fsanitize=${ONNXPRESS_SANITIZE} -fno-omit-frame-pointer
                                                   -fno-sanitize-recover=all)
  target_link_options(onnxpress_flags INTERFACE -fsanitize=${ONNXPRESS_SANITIZE})
endif()
if(ONNXPRESS_COVERAGE)
  target_compile_options(onnxpress_flags INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(onnxpress_flags INTERFACE --coverage)
endif()
target_link_options(onnxpress_flags INTERFACE -Wl,-z,relro,-z,now -Wl,--as-needed)
