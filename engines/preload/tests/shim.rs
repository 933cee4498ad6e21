//! The shim's own file: what it asks of a C library, which none may lack, and what it shows of itself.

use std::{collections::BTreeSet, fs, process::Command, sync::LazyLock};

use coracle_preload::shim_bytes;
use goblin::elf::{
    Elf,
    dynamic::{DF_1_NODELETE, DF_1_NOW, DT_FLAGS_1, DT_GNU_HASH, DT_HASH, DT_NEEDED, DT_TEXTREL, DT_VERNEED},
    program_header::{PF_R, PF_W, PF_X, PT_GNU_EH_FRAME, PT_GNU_RELRO, PT_GNU_STACK, PT_LOAD, PT_TLS},
    reloc::{R_X86_64_64, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT, R_X86_64_RELATIVE},
    sym::{STB_GLOBAL, STB_WEAK},
};

/// In glibc 2.17 as in musl 1.1.16.
const ASKED: &[&str] = &[
    "__errno_location",
    "closedir",
    "fclose",
    "fdopen",
    "fdopendir",
    "fileno",
    "free",
    "getgrouplist",
    "malloc",
    "posix_spawn_file_actions_addclose",
    "posix_spawnattr_destroy",
    "posix_spawnattr_init",
    "posix_spawnattr_setflags",
    "posix_spawnattr_setsigdefault",
    "posix_spawnattr_setsigmask",
    "qsort",
    "readdir",
    "realloc",
];

/// Not everywhere: null where they are not.
const PERHAPS: &[&str] = &[
    "__progname",
    "__progname_full",
    "_dl_sym",
    "dlsym",
    "environ",
    "gnu_get_libc_version",
    "program_invocation_name",
    "program_invocation_short_name",
];

static SHIM: LazyLock<Vec<u8>> = LazyLock::new(|| shim_bytes().expect("the shim decompresses"));

fn elf() -> Elf<'static> {
    Elf::parse(&SHIM).expect("the shim is an ELF file")
}

#[test]
fn it_needs_nothing_that_some_c_library_lacks() {
    let elf = elf();
    assert!(elf.libraries.is_empty(), "DT_NEEDED: {:?}", elf.libraries);
    assert!(elf.verneed.is_none() && elf.verdef.is_none() && elf.versym.is_none(), "versions of symbols");
    assert!(!elf.program_headers.iter().any(|header| header.p_type == PT_TLS), "thread-local memory");
    let dynamic = elf.dynamic.as_ref().expect("a dynamic section");
    for tag in [DT_NEEDED, DT_VERNEED, DT_TEXTREL] {
        assert!(!dynamic.dyns.iter().any(|entry| entry.d_tag == tag), "tag {tag:#x}");
    }
    let undefined: Vec<_> = elf.dynsyms.iter().filter(|symbol| symbol.st_shndx == 0 && symbol.st_name != 0).collect();
    let of = |binding: u8| -> BTreeSet<&str> {
        undefined
            .iter()
            .filter(|symbol| symbol.st_bind() == binding)
            .filter_map(|symbol| elf.dynstrtab.get_at(symbol.st_name))
            .collect()
    };
    assert_eq!(of(STB_GLOBAL), ASKED.iter().copied().collect());
    assert_eq!(of(STB_WEAK), PERHAPS.iter().copied().collect());
    let simple = [R_X86_64_RELATIVE, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT, R_X86_64_64];
    for relocation in elf.dynrelas.iter().chain(elf.pltrelocs.iter()) {
        assert!(simple.contains(&relocation.r_type), "a relocation of type {}", relocation.r_type);
    }
}

#[test]
fn loaders_of_all_ages_find_its_names_and_keep_it() {
    let elf = elf();
    let dynamic = elf.dynamic.as_ref().expect("a dynamic section");
    let value = |tag| dynamic.dyns.iter().find(|entry| entry.d_tag == tag).map(|entry| entry.d_val);
    assert!(value(DT_HASH).is_some() && value(DT_GNU_HASH).is_some(), "both kinds of hash tables");
    let flags = value(DT_FLAGS_1).unwrap_or(0);
    assert_eq!(flags & (DF_1_NODELETE | DF_1_NOW), DF_1_NODELETE | DF_1_NOW);
    // Debuggers and cancelled threads unwind through it.
    assert!(elf.program_headers.iter().any(|header| header.p_type == PT_GNU_EH_FRAME));
    for header in &elf.program_headers {
        if matches!(header.p_type, PT_LOAD | PT_GNU_STACK) {
            assert_ne!(header.p_flags & (PF_W | PF_X), PF_W | PF_X, "nothing is written and executed: {header:?}");
        }
    }
}

/// Every program that starts pays for each of its mappings, and for each page that is written to.
#[test]
fn a_start_costs_two_mappings_and_no_search_for_its_own_names() {
    let elf = elf();
    let parts: Vec<u32> =
        elf.program_headers.iter().filter(|header| header.p_type == PT_LOAD).map(|header| header.p_flags).collect();
    assert_eq!(parts, [PF_R | PF_X, PF_R | PF_W]);
    assert!(!elf.program_headers.iter().any(|header| header.p_type == PT_GNU_RELRO), "a part is made read-only later");
    for relocation in elf.dynrelas.iter().chain(elf.pltrelocs.iter()).filter(|relocation| relocation.r_sym != 0) {
        let symbol = elf.dynsyms.get(relocation.r_sym).expect("a symbol");
        let name = elf.dynstrtab.get_at(symbol.st_name).unwrap_or_default();
        assert_eq!(symbol.st_shndx, 0, "{name} of its own is searched for, and a program's is found");
    }
}

#[test]
fn it_stands_before_the_c_library_with_calls_alone() {
    let elf = elf();
    let defined: BTreeSet<&str> = elf
        .dynsyms
        .iter()
        .filter(|symbol| symbol.st_shndx != 0)
        .filter_map(|symbol| elf.dynstrtab.get_at(symbol.st_name))
        .collect();
    // One of each family.
    for name in [
        "open",
        "open64",
        "__open_2",
        "openat64",
        "creat",
        "fopen64",
        "freopen",
        "tmpfile",
        "stat",
        "lstat64",
        "__xstat",
        "__fxstatat64",
        "statx",
        "access",
        "euidaccess",
        "readlink",
        "__readlink_chk",
        "realpath",
        "__realpath_chk",
        "canonicalize_file_name",
        "getcwd",
        "__getcwd_chk",
        "getwd",
        "get_current_dir_name",
        "chdir",
        "opendir",
        "scandir64",
        "mkstemp",
        "mkostemps64",
        "mkdtemp",
        "tempnam",
        "execve",
        "execl",
        "execlp",
        "execle",
        "execvpe",
        "fexecve",
        "posix_spawn",
        "posix_spawnp",
        "posix_spawn_file_actions_addopen",
        "system",
        "popen",
        "pclose",
        "syscall",
        "rename",
        "linkat",
        "symlinkat",
        "unlinkat",
        "mknodat",
        "__xmknod",
        "lsetxattr",
        "utimensat",
        "statvfs64",
        "truncate64",
        "fchmodat",
        "lchown",
        "setresuid",
        "initgroups",
        "bind",
        "connect",
        "recvmmsg",
        "inotify_add_watch",
        "dladdr",
        "dl_iterate_phdr",
        "dlopen",
        "dlmopen",
        "getauxval",
        "uname",
    ] {
        assert!(defined.contains(name), "{name} is not there");
    }
    // What compiled code calls by itself stays inside.
    for name in ["memcpy", "memmove", "memset", "memcmp", "bcmp", "strlen", "rust_eh_personality"] {
        assert!(!defined.contains(name), "{name} would be everybody's");
    }
    let odd: Vec<_> = defined.iter().filter(|name| name.contains("coracle") || name.starts_with("_ZN")).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

#[test]
fn it_ends_a_process_that_it_cannot_serve_with_one_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let shim = dir.path().join("shim.so");
    fs::write(&shim, &**SHIM).expect("written");
    let (lost, damaged, empty) = (dir.path().join("lost"), dir.path().join("damaged"), dir.path().join("empty"));
    fs::write(&damaged, b"CORRUN and what is no run").expect("written");
    fs::write(&empty, b"").expect("written");
    for (run, why) in [
        (None, "the environment names no run"),
        (Some(&lost), "cannot be mapped"),
        (Some(&damaged), "damaged, or of another version"),
        (Some(&empty), "cannot be mapped"),
    ] {
        // Any program that has a loader; the host's files it must not see by mistake.
        let mut command = Command::new("/bin/cat");
        command.arg("/etc/passwd").env_clear().env("LD_PRELOAD", &shim).envs(run.map(|path| ("CORACLE_RUN", path)));
        let output = command.output().expect("a program");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0), "{why}: {said}");
        assert!(said.starts_with("coracle: preload: ") && said.lines().count() == 1, "{said}");
        assert!(said.contains(why) && said.contains("--coracle-engine=ptrace"), "{why}: {said}");
    }
}
