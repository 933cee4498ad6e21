//! scratch, not committed
use std::{num::NonZeroUsize, path::Path};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let tree = coracle::source::walk(Path::new(&a[1]), Default::default()).unwrap();
    let list =
        |i: usize| a.get(i).filter(|s| !s.is_empty()).map(|s| s.split(' ').map(str::to_owned).collect::<Vec<_>>());
    let config = coracle_format::ImageConfig {
        architecture: "amd64".into(),
        os: "linux".into(),
        cmd: list(3),
        entrypoint: list(4),
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()],
        ..Default::default()
    };
    let file = std::fs::File::create(&a[2]).unwrap();
    coracle::pack::write_bundle(
        &file,
        coracle::pack::Contents {
            tree: &tree,
            config,
            defaults: Default::default(),
            provenance: Default::default(),
            facts: Default::default(),
        },
        coracle::pack::Options { level: 6, jobs: NonZeroUsize::new(2).unwrap() },
        &|_, _| {},
    )
    .unwrap();
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
}
