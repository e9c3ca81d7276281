//! The report of an evaluation in a packed file: the last tensor, bytes named `padding.evaluation`, which readers that do not
//! know it skip as padding. The checksum of the data is of the report too.

use std::path::Path;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::DataFile;
use super::file::resize;
use super::packed::{PIECE, PackedFile, hex};
use super::packed_writer::{Overwrite, PackedLayout, PackedWriter};
use super::safetensors::Entry;
use crate::error::{Error, ErrorKind, Result};

/// Name of its tensor.
const REPORT: &str = "padding.evaluation";
/// Most bytes of it.
const MAX_REPORT: usize = 1 << 20;

impl PackedFile {
    /// The report that was stored, if there is one.
    ///
    /// # Errors
    /// `InvalidModel` for what is no JSON object, or too long; as [`DataFile::read`].
    pub(crate) fn report(&self) -> Result<Option<Map<String, Value>>> {
        let Some(bytes) = self.bytes(REPORT, MAX_REPORT as u64)? else { return Ok(None) };
        let wrong = |found: &dyn std::fmt::Display| {
            Err(self.error(REPORT, format_args!("expected a JSON object, found {found}")))
        };
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(report)) => Ok(Some(report)),
            Ok(_) => wrong(&"another value"),
            Err(error) => wrong(&error),
        }
    }

    /// Writes the file `target`, which this is, again, with `report` in place of an earlier one. It is another file with the same
    /// name once it is complete; who has mapped the old one keeps that. `progress` is called with bytes done and bytes in all;
    /// false cancels.
    ///
    /// # Errors
    /// `InvalidModel` if the data is not as it was written; `InvalidArgument` if `target` is another file by now; `Cancelled`; as
    /// [`PackedWriter::finish`]. Nothing changes then.
    pub(crate) fn store_report(
        &self,
        target: &Path,
        report: &Map<String, Value>,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<()> {
        let report = serde_json::to_vec(report).map_err(|error| Error::internal(error.to_string()))?;
        if report.len() > MAX_REPORT {
            return Err(Error::internal(format!("a report of {} bytes", report.len())));
        }
        // Links stay, and what they name is written.
        let target = &std::fs::canonicalize(target).map_err(|error| Error::io(target, error))?;
        let is_report = |entry: &Entry| entry.name == REPORT;
        let (last, others) = match self.tensors.split_last() {
            Some((last, others)) if is_report(last) => (Some(last), others),
            _ => (None, self.tensors.as_slice()),
        };
        if others.iter().any(is_report) {
            return Err(self.error(REPORT, "expected it at the end"));
        }
        let mut layout = PackedLayout::default();
        for Entry { name, dtype, shape, range } in others {
            layout.push(name.clone(), *dtype, shape, range.len())?;
        }
        layout.push(REPORT.to_owned(), super::Dtype::U8, &[report.len()], report.len())?;
        let permissions = std::fs::metadata(target).map_err(|error| Error::io(target, error))?.permissions();
        let mut writer = PackedWriter::create(target, Overwrite::Replace, layout, self.info().clone())?;
        // Before anything of it is in the copy.
        writer.set_permissions(permissions)?;
        let (mut sha256, mut buffer) = (Sha256::new(), Vec::new());
        let total: u64 = self.tensors.iter().map(|entry| entry.range.len() as u64).sum();
        let mut done = 0;
        for entry in others.iter().chain(last) {
            if !is_report(entry) {
                writer.expect(entry.range.len())?;
            }
            let mut start = entry.range.start;
            while start < entry.range.end {
                let end = entry.range.end.min(start + PIECE);
                resize(&mut buffer, end - start)?;
                self.file.read_at(start, &mut buffer)?;
                sha256.update(&buffer);
                if !is_report(entry) {
                    writer.feed(&buffer)?;
                }
                done += (end - start) as u64;
                start = end;
                if !progress(done, total) {
                    return Err(Error::new(ErrorKind::Cancelled, "storing the report was cancelled"));
                }
            }
        }
        self.check_sum(&hex(&sha256.finalize()))?;
        writer.write_last(&report)?;
        let now = PackedFile::open(DataFile::open(target)?)?;
        if now.info() != self.info() {
            let name = self.name();
            let message = format!("{name}: expected the file that was evaluated, found another one by now");
            return Err(Error::invalid_argument(message).with("path", name));
        }
        writer.finish().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::packed_info::PackedInfo;
    use super::super::testing::TempDir;
    use super::*;
    use serde_json::json;

    fn write(path: &Path) {
        let mut layout = PackedLayout::default();
        layout.file("config.json", 3).unwrap();
        layout.vector("v", 2).unwrap();
        let info = PackedInfo {
            formats: Default::default(),
            weights: "f32".into(),
            group_size: None,
            rotated: false,
            source: "test".into(),
            source_sha256: "0".repeat(64),
            stored_bytes: 7,
            calibrated_tokens: None,
            has_tokenizer: false,
            written_by: "0".into(),
            data_sha256: String::new(),
        };
        let mut writer = PackedWriter::create(path, Overwrite::Replace, layout, info).unwrap();
        writer.write(b"{ }").unwrap();
        writer.write_floats(&[1.5, -2.0]).unwrap();
        writer.finish().unwrap();
    }

    fn open(path: &Path) -> PackedFile {
        PackedFile::open(DataFile::open(path).unwrap()).unwrap()
    }

    fn store(file: &PackedFile, path: &Path, report: &Value) -> Result<()> {
        file.store_report(path, report.as_object().unwrap(), &mut |_, _| true)
    }

    #[test]
    fn a_report_is_stored_replaced_and_read() {
        let dir = TempDir::new();
        let path = dir.path().join("m");
        write(&path);
        let first = open(&path);
        assert_eq!(first.report().unwrap(), None);
        for report in [json!({"perplexity": 8.5, "long": "x".repeat(9000)}), json!({"perplexity": 8.25})] {
            store(&open(&path), &path, &report).unwrap();
            let file = open(&path);
            assert_eq!(file.report().unwrap().as_ref(), report.as_object());
            file.verify(&mut |_, _| true).unwrap();
            assert_eq!(file.vector("v", 2).unwrap(), [1.5, -2.0]);
            assert_eq!(file.model_file("config.json", 9).unwrap().unwrap(), b"{ }");
            // Those that do not know it skip it as padding.
            let vectors = [super::super::packed::ExpectedVector { name: "v", len: 2 }];
            file.check(&[], &vectors, &["config.json"]).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // The old file is there for those who have opened it, but it has the name no more.
        assert_eq!(first.vector("v", 2).unwrap(), [1.5, -2.0]);
        let error = store(&first, &path, &json!({})).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn what_is_damaged_or_cancelled_stays_as_it_is() {
        let dir = TempDir::new();
        let path = dir.path().join("m");
        write(&path);
        let whole = std::fs::read(&path).unwrap();
        let file = open(&path);
        let error = file.store_report(&path, &Map::new(), &mut |_, _| false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        let error = store(&open(&path), &path, &json!({})).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // What is no report is said to be none.
        std::fs::write(&path, &whole).unwrap();
        store(&open(&path), &path, &json!({"a": 1})).unwrap();
        let mut forged = std::fs::read(&path).unwrap();
        *forged.last_mut().unwrap() = b'x';
        std::fs::write(&path, forged).unwrap();
        let error = open(&path).report().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidModel);
        assert!(error.message().contains("expected a JSON object"), "{error}");
    }
}
