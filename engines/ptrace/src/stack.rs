//! The stack of a new process, as the kernel laid it out: arguments, environment, auxiliary vector.

use coracle_intercept::{Abi, Errno, errno::EFAULT};

use crate::memory::Memory;

/// See the module header.
#[derive(Debug)]
pub(crate) struct Stack {
    /// Where the stack pointer is.
    pub(crate) pointer: u64,
    /// Bytes of a word.
    pub(crate) word: u64,
    /// Where the strings of the arguments begin and end.
    pub(crate) arguments: (u64, u64),
    /// Where those of the environment begin and end.
    pub(crate) environment: (u64, u64),
    /// Where the auxiliary vector is.
    pub(crate) vector_at: u64,
    /// Its pairs, with the last, `AT_NULL`.
    pub(crate) vector: Vec<(u64, u64)>,
}

impl Stack {
    /// Reads the stack of a process that has just executed.
    pub(crate) fn read(memory: Memory, abi: Abi, pointer: u64) -> Result<Self, Errno> {
        let word = if abi == Abi::X86_64 { 8 } else { 4 };
        let mut words = Words { memory, size: word, at: pointer, chunk: Vec::new(), used: 0 };
        let count = words.next()?;
        let mut first_argument = 0;
        for at in 0..=count {
            let address = words.next()?;
            if at == 0 {
                first_argument = address;
            }
        }
        let first_variable = words.next()?;
        if first_variable != 0 {
            while words.next()? != 0 {}
        }
        let vector_at = words.at;
        let mut vector = Vec::new();
        loop {
            let pair = (words.next()?, words.next()?);
            vector.push(pair);
            if pair.0 == libc::AT_NULL {
                break;
            }
        }
        // Arguments, environment, then the program's name: one behind the other.
        let name = vector.iter().find(|pair| pair.0 == libc::AT_EXECFN).map_or(0, |pair| pair.1);
        let variables = if first_variable == 0 { name } else { first_variable };
        let arguments = if first_argument == 0 { variables } else { first_argument };
        Ok(Self { pointer, word, arguments: (arguments, variables), environment: (variables, name), vector_at, vector })
    }

    /// Where the value of a pair of the vector is.
    pub(crate) fn value_at(&self, kind: u64) -> Option<u64> {
        let at = self.vector.iter().position(|pair| pair.0 == kind)? as u64;
        Some(self.vector_at + at * 2 * self.word + self.word)
    }

    pub(crate) fn value(&self, kind: u64) -> Option<u64> {
        self.vector.iter().find(|pair| pair.0 == kind).map(|pair| pair.1)
    }

    /// Bytes of the vector.
    pub(crate) fn vector_size(&self) -> u64 {
        self.vector.len() as u64 * 2 * self.word
    }

    /// Whether the kernel put it where it puts all stacks when nothing is random (`setarch -R`, debuggers).
    pub(crate) fn is_at_top(&self) -> bool {
        const TOP_64: u64 = 0x7fff_ffff_f000;
        const TOP_32: u64 = 0xffff_e000;
        let top = if self.word == 8 { TOP_64 } else { TOP_32 };
        // The program's name, two pages at most, is the last of it.
        self.value(libc::AT_EXECFN).is_some_and(|name| name < top && top - name < 2 * 4096)
    }
}

/// Words of a tracee's memory, one after the other.
struct Words {
    memory: Memory,
    size: u64,
    at: u64,
    chunk: Vec<u8>,
    used: usize,
}

impl Words {
    fn next(&mut self) -> Result<u64, Errno> {
        let size = usize::try_from(self.size).unwrap_or(8);
        if self.used + size > self.chunk.len() {
            self.chunk.resize(4096, 0);
            let got = self.memory.read_some(self.at, &mut self.chunk)?;
            self.chunk.truncate(got);
            self.used = 0;
            if got < size {
                return Err(EFAULT);
            }
        }
        let mut word = [0; 8];
        word[..size].copy_from_slice(&self.chunk[self.used..self.used + size]);
        self.used += size;
        self.at += self.size;
        Ok(u64::from_le_bytes(word))
    }
}
