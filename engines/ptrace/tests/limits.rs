//! A guest's own limits are the guest's: the engine lives with them, and adds nothing to them.

mod common;

use std::{fs, io::Read};

use common::{bind, extract, spec, start_after, volume, wait};
use coracle_api::Ended;

/// Bytes that a file may have: a few more than the smallest programs.
const MOST: u64 = 10 << 10;

#[test]
fn a_small_limit_of_files_sizes_is_the_guests() {
    let script = "ulimit -f; ulimit -Hf; cd /v; sh -c 'head -c 20000 /dev/zero >large'; echo $?; wc -c <large; \
                  head -c 5000 /dev/zero >small; wc -c <small; cat /proc/self/comm; trap '' XFSZ; head -c 20000 /dev/zero | dd 2>/dev/null >other; \
                  echo $?; wc -c <other; truncate -s 20000 third 2>/dev/null; echo $?";
    for image in ["alpine-3.20.3-x86_64", "alpine-3.20.3-i386"] {
        let Some(tree) = extract(image) else { continue };
        for (variant, root) in [("P1", false), ("P2", false), ("P1", true)] {
            let dir = volume();
            let mut spec = spec(&tree, &["sh", "-c", script]);
            spec.variant = Some(variant.to_owned());
            spec.binds.push(bind(dir.path(), "/v", false));
            if root {
                (spec.identity.uid, spec.identity.gid) = (0, 0);
            }
            let (process, mut output) = start_after(&spec, || {
                let limit = libc::rlimit { rlim_cur: MOST, rlim_max: MOST };
                // SAFETY: setrlimit reads one struct rlimit.
                assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
            });
            let mut text = String::new();
            output.read_to_string(&mut text).expect("the guest's output");
            assert_eq!(wait(process), Ok(Ended::Exited(0)), "{text}");
            assert_eq!(
                text, "20\n20\nFile size limit exceeded\n153\n10240\n5000\ncat\n1\n10240\n1\n",
                "{image} {variant} root {root}"
            );
            assert_eq!(fs::metadata(dir.path().join("large")).expect("written").len(), MOST);
        }
    }
}
