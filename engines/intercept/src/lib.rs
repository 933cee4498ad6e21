//! What each system call means to a guest: one table, used by every engine that intercepts.

#![no_std]
