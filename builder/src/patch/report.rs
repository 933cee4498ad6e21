//! What became of an image's files, in words.

/// What the analysis of a tree found, for people: sorted by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Files that are edited, and how.
    pub edited: Vec<Line>,
    /// Programs and libraries that an edit would have to change and does not, and why.
    pub left: Vec<Line>,
}

/// A file and what is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Guest path.
    pub path: String,
    /// In words.
    pub text: String,
}
