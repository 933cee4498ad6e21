//! What was pulled: layers and images by digest, under `$CORACLE_DIR` or `~/.coracle`.
