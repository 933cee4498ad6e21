//! Guest path to host path and back: root, binds, symbolic links, `..`, without allocation.

#![no_std]
