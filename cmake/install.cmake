# What `cmake --install` and the Debian package put where. The manual and the completions are printed by the program
# itself, from the same declarations as its --help.
include(GNUInstallDirs)

set(generated ${CMAKE_BINARY_DIR}/generated/share)
file(MAKE_DIRECTORY ${generated})
find_program(GZIP_PROGRAM gzip REQUIRED)
add_custom_command(OUTPUT ${generated}/onnxpress.1.gz
  COMMAND onnxpress man > ${generated}/onnxpress.1
  COMMAND ${GZIP_PROGRAM} -9nf ${generated}/onnxpress.1  # n: no time in it, the same bytes every time
  DEPENDS onnxpress VERBATIM)
set(share_files ${generated}/onnxpress.1.gz)
foreach(shell bash zsh fish)
  add_custom_command(OUTPUT ${generated}/completion.${shell}
    COMMAND onnxpress completion ${shell} > ${generated}/completion.${shell}
    DEPENDS onnxpress VERBATIM)
  list(APPEND share_files ${generated}/completion.${shell})
endforeach()
add_custom_target(onnxpress_share ALL DEPENDS ${share_files})

install(TARGETS onnxpress RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES ${generated}/onnxpress.1.gz DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${generated}/completion.bash RENAME onnxpress
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${generated}/completion.zsh RENAME _onnxpress DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES ${generated}/completion.fish RENAME onnxpress.fish
        DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES README.md CHANGELOG.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES LICENSE RENAME copyright DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})

# tools/package. The dependencies are those of the shared libraries the program is linked to.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_VENDOR "onnxpress")
set(CPACK_PACKAGE_CONTACT "onnxpress developers <onnxpress@users.noreply.invalid>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION "${PROJECT_DESCRIPTION}
 onnxpress takes an ONNX model, runs a pipeline of compression passes over it
 (clean-up, folding, pruning, low rank, 8-bit quantization) and writes a smaller
 ONNX model with a report of what it cost.")
include(CPack)
