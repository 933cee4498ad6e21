//! What layers mean to each other.

use super::*;

#[test]
fn files_are_replaced_and_directories_merged() {
    let lower = tar().dir("./").dir("./a/").file("./a/x", "1").file("./a/y", "2");
    let upper = tar().dir("a").file("a/x", "3").file("b", "");
    assert_eq!(tells(vec![lower, upper]), "/ a/ a/x=3 a/y=2 b=");
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    let lower = || tar().file("a", "1").dir("d").file("d/x", "1").file("d/e/y", "1").file("top", "1");
    assert_eq!(tells(vec![lower(), tar().file(".wh.a", "").file(".wh.d", "")]), "/ top=1");
    // Created by the layer that hides: before or after makes no difference.
    assert_eq!(tells(vec![lower(), tar().file("d/n", "2").file(".wh.d", "").file(".wh.a", "")]), "/ d/ d/n=2 top=1");
    assert_eq!(tells(vec![lower(), tar().file(".wh.d", "").file("d/n", "2").file(".wh.a", "")]), "/ d/ d/n=2 top=1");
    assert_eq!(
        tells(vec![lower(), tar().file("d/e/n", "2").file("d/.wh..wh..opq", "")]),
        "/ a=1 d/ d/e/ d/e/n=2 top=1"
    );
    assert_eq!(tells(vec![lower(), tar().file("n", "2").file(".wh..wh..opq", "")]), "/ n=2");
    assert_eq!(
        tells(vec![lower(), tar().file("a", "2").file(".wh.a", "").file("nothing/.wh.here", "")]).as_str(),
        "/ a=2 d/ d/e/ d/e/y=1 d/x=1 top=1"
    );
}

#[test]
fn a_hidden_name_may_be_taken_again() {
    let lower = tar().dir("d").file("d/x", "1").symlink("l", "d").file("f", "1");
    let upper = tar().file(".wh.d", "").file("d", "now a file").dir("l").file("l/y", "2").dir("f").file("f/z", "3");
    assert_eq!(tells(vec![lower, upper]), "/ d=now a file f/ f/z=3 l/ l/y=2");
    // The reverse: directories give way to links and files.
    let lower = tar().dir("d").file("d/x", "1").dir("e").file("e/x", "1");
    assert_eq!(tells(vec![lower, tar().symlink("d", "e").file("e", "2")]), "/ d->e e=2");
}

#[test]
fn hard_links_share_what_their_target_was() {
    let lower = tar().file("a", "1").link("b", "a").link("c", "./b");
    assert_eq!(tells(vec![lower, tar().file("a", "2")]), "/ a=2 b=1#2 c=1#2");
    // Across layers; the target hidden by a third one, so that its bytes live on under the other name.
    let layers = || vec![tar().file("d/a", "1").file("z", "9"), tar().link("b", "d/a"), tar().file(".wh.d", "")];
    assert_eq!(tells(layers()), "/ b=1 z=9");
    assert_eq!(tells([layers(), vec![tar().link("d/c", "b")]].concat()), "/ b=1#1 d/ d/c=1#1 z=9");
    // To a symbolic link: the link itself gets another name.
    assert_eq!(tells(vec![tar().symlink("l", "nowhere").link("m", "l")]), "/ l->nowhere#1 m->nowhere#1");
    // To itself, as GNU tar writes it when told to take a file twice.
    assert_eq!(tells(vec![tar().file("a", "1").link("a", "a")]), "/ a=1");
    // The link's own name goes first.
    assert_eq!(tells(vec![tar().file("a", "1").file("b", "2").link("b", "a")]), "/ a=1#1 b=1#1");
}

#[test]
fn bytes_thought_hidden_are_read_again() {
    // By its name, the lower `real/x` is hidden by the upper `real`; but the lower layer wrote it through a link.
    let lower =
        || tar().dir("other").symlink("real", "other").file("real/x", "1").file("real/y", "2").link("k", "other/y");
    assert_eq!(
        tells(vec![lower(), tar().dir("real").file("real/x", "3")]),
        "/ k=2#1 other/ other/x=1 other/y=2#1 real/ real/x=3"
    );
    // The same where the layer is compressed and lies below two others.
    assert_eq!(
        tells(vec![lower(), tar().file("n", ""), tar().file("real", "3").file(".wh.k", "")]),
        "/ n= other/ other/x=1 other/y=2 real=3"
    );
}

#[test]
fn paths_go_through_the_tree_s_own_links() {
    let lower = tar().dir("usr/lib").symlink("lib", "usr/lib").symlink("abs", "/usr").symlink("up", "../../..");
    let upper = tar().file("lib/a", "1").file("abs/lib/b", "2").file("up/top", "3").file("abs/../x", "4");
    let all = "/ abs->/usr lib->usr/lib top=3 up->../../.. usr/ usr/lib/ usr/lib/a=1 usr/lib/b=2 x=4";
    assert_eq!(tells(vec![lower, upper]), all);
    // A link to nothing, as a parent: what it names is made, inside.
    assert_eq!(tells(vec![tar().symlink("l", "/a/b").file("l/x", "1")]), "/ a/ a/b/ a/b/x=1 l->/a/b");
    assert!(
        fails(vec![tar().symlink("a", "b").symlink("b", "a").file("a/x", "1")]).contains("too many symbolic links")
    );
    assert!(fails(vec![tar().file("a", "1").file("a/x", "1")]).contains("parent is not a directory"));
    assert!(fails(vec![tar().symlink("a", "a/a/a/a").file("a/x", "1")]).contains("links in its path"));
    // Whiteouts go through links too.
    let lower = tar().dir("usr/lib").file("usr/lib/a", "1").symlink("lib", "usr/lib");
    assert_eq!(tells(vec![lower, tar().file("lib/.wh.a", "")]), "/ lib->usr/lib usr/ usr/lib/");
}

#[test]
fn missing_parents_are_plain_directories() {
    let tree = flattened(vec![tar().file("a/b/c", "1").end()]).expect("flattened");
    for path in [&b"a"[..], b"a/b"] {
        let inode = tree.get(path).expect("there");
        assert_eq!((inode.mode, inode.uid, inode.gid, inode.mtime.seconds), (0o755, 0, 0, 1000));
    }
}

#[test]
fn what_upper_layers_hide_is_never_written() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let big = "x".repeat(1 << 20);
    let lower = tar().file("d/gone", &big).file("replaced", &big).file("kept", "1").file("o/gone", &big);
    let middle = tar().file("replaced", "2").file("o/.wh..wh..opq", "").file("later", &big);
    let upper = tar().file(".wh.d", "").file(".wh.later", "");
    let layers: Vec<Layer> =
        [lower, middle, upper].into_iter().enumerate().map(|(n, tar)| layer(&directory, n, &tar.end(), true)).collect();
    let options = options(&directory);
    let meter = Meter::new(options.limits);
    let scanned = scan_all(&layers, &options, &meter).expect("scanned");
    let written: u64 = scanned
        .iter()
        .flatten()
        .filter_map(|member| match &member.kind {
            MemberKind::File { size, data: Some(Data::Slice { .. }) } => Some(*size),
            _ => None,
        })
        .sum();
    assert_eq!(written, 2, "`kept` and the new `replaced`");
    let tree = flatten(Content::Layers(layers), &options).expect("flattened");
    assert_eq!(told(&tree), "/ kept=1 o/ replaced=2");
}
