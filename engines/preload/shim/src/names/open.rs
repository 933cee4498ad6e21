//! Names of files that are about to be used, in other words than open(2)'s.
