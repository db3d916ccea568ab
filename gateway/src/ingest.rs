//! Moving the bytes of uploads: reorder, hash, stage, seal. `vfs` decides what may be written and `sftp` speaks with
//! the client; every call of the blob store is made here.

mod assembly;
mod block;
mod budget;
pub mod commit;
pub mod content_type;
mod digest;
mod error;
mod live;
mod open_file;
mod opening;
mod parking;
mod quota;
mod recovery;
mod renaming;
pub mod reorder;
mod spare;
mod storage;
mod upload;

pub use budget::{Budget, Budgets, CONNECTION_BYTES, GatewayBudget};
pub use commit::{Acceptance, CloseAnswer, Committer, Ingest};
pub use error::IngestError;
pub use live::LiveUploads;
pub use open_file::OpenFile;
pub use recovery::{recover, sweep};
pub use renaming::RenameAnswer;
pub use storage::Storage;
pub use upload::{Content, Finished, OpenUpload, Parked, UploadContext, UploadOptions, delete_blobs};
