//! Tree and stub to a temporary file beside the output, renamed when it is whole.
