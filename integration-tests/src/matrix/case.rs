//! The cases, in the order in which they are tried and stand in the table.

/// One column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "`meaning` says what each is")]
pub enum Case {
    Put,
    Empty,
    Large,
    Overwrite,
    Times,
    Resume,
    Tree,
    Rename,
    Stat,
    List,
    Names,
    AtOnce,
    Sync,
    Get,
    Remove,
    Bad,
}

impl Case {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Put,
        Self::Empty,
        Self::Large,
        Self::Overwrite,
        Self::Times,
        Self::Resume,
        Self::Tree,
        Self::Rename,
        Self::Stat,
        Self::List,
        Self::Names,
        Self::AtOnce,
        Self::Sync,
        Self::Get,
        Self::Remove,
        Self::Bad,
    ];

    /// Its heading in the table.
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Empty => "0 bytes",
            Self::Large => "20 MiB",
            Self::Overwrite => "overwrite",
            Self::Times => "times",
            Self::Resume => "resume",
            Self::Tree => "directory",
            Self::Rename => "temp name",
            Self::Stat => "stat",
            Self::List => "list",
            Self::Names => "names",
            Self::AtOnce => "4 at once",
            Self::Sync => "sync",
            Self::Get => "get",
            Self::Remove => "rm",
            Self::Bad => "bad put",
        }
    }

    /// What is done, and what must be true afterwards.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Put => {
                "a file of 70,000 bytes; the cell says how the gateway knows that it is complete (`completion_evidence`)"
            }
            Self::Empty => "a file of 0 bytes is a file",
            Self::Large => "a file of 20 MiB",
            Self::Overwrite => {
                "the same name again with other bytes, after the first was delivered: a second version, nothing else"
            }
            Self::Times => "the modification time of the local file is that of the entry",
            Self::Resume => {
                "8 MiB of which 5 arrived before the connection broke: the rest is sent, and not the beginning again"
            }
            Self::Tree => "a directory with directories in it, which the client makes",
            Self::Rename => {
                "uploaded under a temp name and renamed: one record and one event, of the final name"
            }
            Self::Stat => "the size that the server tells right after the upload",
            Self::List => "a listing of `/sent` has names and sizes",
            Self::Names => "spaces, quotes, wildcards, signs of shells and URLs, letters of several scripts",
            Self::AtOnce => "four files at the same time",
            Self::Sync => {
                "what the client has for keeping directories alike, run again after everything was delivered and one file \
                 had changed: no error, and the change arrives"
            }
            Self::Get => "a download fails, leaves no byte behind, and says so",
            Self::Remove => "`rm` of an accepted file in `/upload` fails and says so; the file stays",
            Self::Bad => {
                "a file larger than the server takes, and one into a directory that takes none: the client says that it \
                 failed, and nothing is accepted"
            }
        }
    }
}
