//! A log in segment files: append in batches, make durable, roll, cut a torn tail, drop what is no longer needed.
//!
//! Single writer. A new segment is written under a temporary name, synced and renamed, and its directory synced, so a
//! segment that has its name has its header. A segment that is full may be packed; it is read as if it were not.

use super::{
    crash_point,
    frames::{self, Bad, Frames, HEADER_BYTES, Header, Place},
};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use metrics::Histogram;
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::Instant,
};

/// Which log it is.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// First part of the file names.
    pub name: &'static str,
    pub magic: [u8; 8],
    /// Version of what new frames mean.
    pub rules: u32,
    /// A segment that has reached this size is followed by a new one.
    pub segment_bytes: u64,
}

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// Damage that no crash explains.
    #[error("{}: {bad}", path.display())]
    Damaged { path: PathBuf, bad: Bad },
    #[error("{}: the segment before it ends at sequence {ends}, it begins at {begins}", path.display())]
    Gap { path: PathBuf, ends: u64, begins: u64 },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::Io { path, source }
}

/// Ending of a packed segment's name.
const PACKED: &str = "gz";
/// A packed segment that holds more is damaged: a segment ends with the batch that reaches its size.
const UNPACKED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A segment file by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub first_seq: u64,
    /// Where it was when it was listed; it may have been packed since.
    pub path: PathBuf,
}

impl Segment {
    fn is_packed(&self) -> bool {
        is_packed(&self.path)
    }

    /// Its names, the plain one first: that one counts while both are there.
    fn names(&self) -> [PathBuf; 2] {
        let plain = if self.is_packed() { self.path.with_extension("") } else { self.path.clone() };
        let packed = plain.with_added_extension(PACKED);
        [plain, packed]
    }

    /// Removes it, packed or not.
    pub fn remove(&self) -> Result<(), Error> {
        for path in self.names() {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(&path)(e)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_packed(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == PACKED)
}

/// A torn tail that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub path: PathBuf,
    pub bytes: u64,
    pub bad: Bad,
}

/// Makes renames and removals in a directory durable.
pub fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(at(dir))
}

/// The segments in a directory, oldest first.
pub fn segments(spec: Spec, dir: &Path) -> Result<Vec<Segment>, Error> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let first_seq = name
            .strip_suffix(".gz")
            .unwrap_or(name)
            .strip_suffix(".log")
            .and_then(|n| n.strip_prefix(spec.name)?.strip_prefix('-')?.parse().ok());
        if let Some(first_seq) = first_seq
            && !(is_packed(&path) && found.contains_key(&first_seq))
        {
            found.insert(first_seq, path);
        }
    }
    Ok(found.into_iter().map(|(first_seq, path)| Segment { first_seq, path }).collect())
}

/// Packs the oldest segment that is plain, but for the `newest` ones. Answers its bytes before and after, where there was one.
/// Nobody may remove segments meanwhile.
///
/// # Errors
/// It cannot be read or written; it is as it was then.
pub fn pack_next(spec: Spec, dir: &Path, newest: usize) -> Result<Option<(u64, u64)>, Error> {
    let all = segments(spec, dir)?;
    let old = &all[..all.len().saturating_sub(newest)];
    let fits = |s: &&Segment| {
        !s.is_packed() && fs::metadata(&s.path).is_ok_and(|file| file.len() <= UNPACKED_BYTES_MAX)
    };
    let Some(segment) = old.iter().find(fits) else { return Ok(None) };
    let [plain, packed] = segment.names();
    let temporary = plain.with_added_extension("tmp");
    let write = || -> io::Result<(u64, u64)> {
        let mut encoder = GzEncoder::new(File::create(&temporary)?, Compression::default());
        let read = io::copy(&mut File::open(&plain)?, &mut encoder)?;
        let file = encoder.finish()?;
        file.sync_all()?;
        Ok((read, file.metadata()?.len()))
    };
    let sizes = write().inspect_err(|_| {
        // The next start removes what is left of it.
        let _removed = fs::remove_file(&temporary);
    });
    let sizes = sizes.map_err(at(&temporary))?;
    crash_point(spec.name, "packed under a temporary name");
    fs::rename(&temporary, &packed).map_err(at(&packed))?;
    sync_dir(dir)?;
    crash_point(spec.name, "packed and plain");
    fs::remove_file(&plain).map_err(at(&plain))?;
    Ok(Some(sizes))
}

/// Reads one segment and checks that its header fits its name.
pub fn read_segment(spec: Spec, segment: &Segment) -> Result<(Vec<u8>, Header), Error> {
    read_head(spec, segment, u64::MAX)
}

/// Reads the first bytes of a segment and checks that its header fits its name.
pub fn read_head(spec: Spec, segment: &Segment, bytes_max: u64) -> Result<(Vec<u8>, Header), Error> {
    let bytes = match read_file(segment, &segment.path, bytes_max) {
        // It was packed after it was listed.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound && !segment.is_packed() => {
            let [_, packed] = segment.names();
            read_file(segment, &packed, bytes_max)?
        }
        read => read?,
    };
    let damaged = |bad| Error::Damaged { path: segment.path.clone(), bad };
    let header = frames::parse_header(spec.magic, &bytes).map_err(damaged)?;
    if header.first_seq != segment.first_seq {
        let what = "the header names another first sequence than the file's name";
        return Err(damaged(Bad { offset: 0, seq: segment.first_seq, what }));
    }
    Ok((bytes, header))
}

/// The first bytes of a segment as they were before it was packed.
fn read_file(segment: &Segment, path: &Path, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(at(path))?;
    let mut bytes = Vec::new();
    if !is_packed(path) {
        let length = file.metadata().map_err(at(path))?.len().min(bytes_max);
        bytes.reserve_exact(usize::try_from(length).unwrap_or(0));
        file.take(bytes_max).read_to_end(&mut bytes).map_err(at(path))?;
        return Ok(bytes);
    }
    let damaged = |what| {
        let bad = Bad { offset: 0, seq: segment.first_seq, what };
        Error::Damaged { path: path.to_owned(), bad }
    };
    let unpacked = GzDecoder::new(file).take(bytes_max.min(UNPACKED_BYTES_MAX)).read_to_end(&mut bytes);
    unpacked.map_err(|e| match e.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
            damaged("it cannot be unpacked")
        }
        _ => at(path)(e),
    })?;
    Ok(bytes)
}

/// Calls `each` with every frame from sequence `from` on, whole segments checked; any bad frame is an error.
pub fn read_from<E: From<Error>>(
    spec: Spec,
    dir: &Path,
    from: u64,
    mut each: impl FnMut(frames::Frame<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut walk = Walk::open(spec, dir, from)?;
    while let Some(frame) = walk.next_frame()? {
        each(frame)?;
    }
    match walk.torn {
        Some(cut) => Err(Error::Damaged { path: cut.path, bad: cut.bad }.into()),
        None => Ok(()),
    }
}

/// Reads a log frame by frame from a sequence on, whole segments checked. It writes nothing.
#[derive(Debug)]
pub struct Walk {
    spec: Spec,
    rest: std::vec::IntoIter<Segment>,
    segment: Segment,
    bytes: Vec<u8>,
    place: Option<Place>,
    from: u64,
    rules: u32,
    read_bytes: u64,
    /// What stands behind the last whole frame, where it can be a write that is or was cut short.
    pub torn: Option<Cut>,
}

impl Walk {
    /// Begins at the segment that holds sequence `from`.
    pub fn open(spec: Spec, dir: &Path, from: u64) -> Result<Self, Error> {
        let mut all = segments(spec, dir)?;
        let skip = all.partition_point(|s| s.first_seq <= from).saturating_sub(1);
        let rest = all.split_off(skip.min(all.len())).into_iter();
        let segment = Segment { first_seq: 0, path: dir.to_owned() };
        Ok(Self {
            spec,
            rest,
            segment,
            bytes: Vec::new(),
            place: None,
            from,
            rules: 0,
            read_bytes: 0,
            torn: None,
        })
    }

    /// The file that the walk is in.
    pub fn path(&self) -> &Path {
        &self.segment.path
    }

    /// Version of what the frames of the segment mean that the walk is in.
    pub fn rules(&self) -> u32 {
        self.rules
    }

    /// Bytes of the segments behind the walk.
    pub fn bytes_done(&self) -> u64 {
        self.read_bytes + self.place.map_or(0, |p| p.offset as u64)
    }

    /// The next frame; `None` at the end, which may be a torn tail.
    pub fn next_frame(&mut self) -> Result<Option<frames::Frame<'_>>, Error> {
        loop {
            let at_end = self.place.is_none_or(|p| p.offset >= self.bytes.len());
            if at_end && !self.open_next()? {
                return Ok(None);
            }
            let Some(place) = self.place else { return Ok(None) };
            let mut walk = Frames::from_place(&self.bytes, place);
            match walk.next() {
                None => {}
                Some(Ok(frame)) => {
                    let is_wanted = frame.seq >= self.from;
                    self.place = Some(walk.place());
                    if is_wanted {
                        return Ok(frames::frame_at(&self.bytes, place.offset).ok());
                    }
                }
                Some(Err(bad)) => {
                    let path = self.segment.path.clone();
                    if self.rest.len() > 0 || !frames::is_torn_tail(&self.bytes, &bad) {
                        return Err(Error::Damaged { path, bad });
                    }
                    self.torn = Some(Cut { path, bytes: (self.bytes.len() - place.offset) as u64, bad });
                    self.bytes.truncate(place.offset);
                    return Ok(None);
                }
            }
        }
    }

    fn open_next(&mut self) -> Result<bool, Error> {
        let Some(segment) = self.rest.next() else { return Ok(false) };
        let (bytes, header) = read_segment(self.spec, &segment)?;
        check_joint(&segment, header, self.place.map(|p| (p.next_seq, p.prev_crc)))?;
        self.read_bytes += self.bytes.len() as u64;
        (self.segment, self.bytes, self.place) = (segment, bytes, Some(Place::first(header)));
        self.rules = header.rules;
        Ok(true)
    }
}

/// A segment continues the one before it.
fn check_joint(segment: &Segment, header: Header, end: Option<(u64, u32)>) -> Result<(), Error> {
    let Some((next_seq, crc)) = end else { return Ok(()) };
    let path = segment.path.clone();
    if header.first_seq != next_seq {
        return Err(Error::Gap { path, ends: next_seq - 1, begins: header.first_seq });
    }
    if header.prev_crc != crc {
        let what = "the chain to the segment before is broken";
        return Err(Error::Damaged { path, bad: Bad { offset: 0, seq: next_seq, what } });
    }
    Ok(())
}

/// The writer of a log.
#[derive(Debug)]
pub struct SegLog {
    spec: Spec,
    dir: PathBuf,
    segments: Vec<Segment>,
    file: File,
    /// Length of the file up to the last flush.
    length: u64,
    buffer: Vec<u8>,
    /// Frames in the buffer.
    buffered: u32,
    next_seq: u64,
    prev_crc: u32,
    last_time_us: i64,
    /// Chain and sequence at the last flush: what a new segment starts with, and what a refused flush goes back to.
    flushed: (u64, u32, i64),
    sync_seconds: Histogram,
}

impl SegLog {
    /// Opens or begins a log. The last segment is read whole and a torn tail cut off; a new log begins at `first_seq`.
    pub fn open(spec: Spec, dir: &Path, first_seq: u64) -> Result<(Self, Option<Cut>), Error> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        remove_leftovers(spec, dir)?;
        let mut segments = segments(spec, dir)?;
        let Some(last) = segments.last().cloned() else {
            let header = Header { first_seq, prev_crc: 0, rules: spec.rules };
            let (segment, file) = create(spec, dir, header)?;
            segments.push(segment);
            return Ok((Self::new(spec, dir, segments, file, Place::first(header), 0), None));
        };
        if last.is_packed() {
            let bad = Bad { offset: 0, seq: last.first_seq, what: "nothing follows it, and it is packed" };
            return Err(Error::Damaged { path: last.path, bad });
        }
        let (bytes, header) = read_segment(spec, &last)?;
        let mut walk = Frames::new(&bytes, header);
        let mut last_time_us = 0;
        let mut bad = None;
        for frame in &mut walk {
            match frame {
                Ok(frame) => last_time_us = frame.time_us,
                Err(b) => bad = Some(b),
            }
        }
        let length = walk.place().offset as u64;
        let file = OpenOptions::new().append(true).open(&last.path).map_err(at(&last.path))?;
        let cut = match bad {
            None => None,
            Some(bad) if frames::is_torn_tail(&bytes, &bad) => {
                file.set_len(length).and_then(|()| file.sync_all()).map_err(at(&last.path))?;
                crash_point(spec.name, "torn tail cut");
                Some(Cut { path: last.path.clone(), bytes: bytes.len() as u64 - length, bad })
            }
            Some(bad) => return Err(Error::Damaged { path: last.path, bad }),
        };
        Ok((Self::new(spec, dir, segments, file, walk.place(), last_time_us), cut))
    }

    fn new(
        spec: Spec,
        dir: &Path,
        segments: Vec<Segment>,
        file: File,
        end: Place,
        last_time_us: i64,
    ) -> Self {
        let Place { offset, next_seq, prev_crc } = end;
        Self {
            spec,
            dir: dir.to_owned(),
            segments,
            file,
            length: offset as u64,
            buffer: Vec::new(),
            buffered: 0,
            next_seq,
            prev_crc,
            last_time_us,
            flushed: (next_seq, prev_crc, last_time_us),
            sync_seconds: metrics::histogram!("fafnir_log_sync_seconds", "log" => spec.name),
        }
    }

    /// Sequence and crc of the last frame.
    pub fn last(&self) -> (u64, u32) {
        (self.next_seq - 1, self.prev_crc)
    }

    /// Sequence of the next frame.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Time of the last frame of this segment or process; 0 when it has none.
    pub fn last_time_us(&self) -> i64 {
        self.last_time_us
    }

    /// Sequence of the oldest frame that is kept.
    pub fn first_seq(&self) -> u64 {
        self.segments.first().map_or(self.next_seq, |s| s.first_seq)
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether the next flush begins a new segment.
    pub fn will_roll(&self) -> bool {
        self.length >= self.spec.segment_bytes
    }

    /// Whether the next frame pushed is the first of its segment.
    pub fn begins_segment(&self) -> bool {
        self.buffer.is_empty() && (self.will_roll() || self.length == HEADER_BYTES as u64)
    }

    /// Puts a frame into the batch and answers its sequence. Nothing is written yet.
    pub fn push(&mut self, time_us: i64, payload: &[u8]) -> u64 {
        let seq = self.next_seq;
        self.prev_crc = frames::push(&mut self.buffer, self.prev_crc, self.buffered, seq, time_us, payload);
        self.buffered += 1;
        self.next_seq += 1;
        self.last_time_us = time_us;
        seq
    }

    /// Writes the batch and, with `durable`, makes it durable. When writing fails, nothing of the batch is kept and the
    /// log can go on; when that cannot be had either, or the sync fails, the answer is [`FlushError::Lost`].
    pub fn flush(&mut self, durable: bool) -> Result<(), FlushError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        if self.will_roll()
            && let Err(e) = self.roll()
        {
            self.forget();
            return Err(e);
        }
        self.assert_chained();
        let path = self.segments.last().map(|s| s.path.clone()).unwrap_or_default();
        crash_point(self.spec.name, "before the write");
        let (written, result) = write_all(&mut self.file, &self.buffer);
        if let Err(source) = result {
            self.forget();
            // What was not begun needs no undoing: a file system that turned read-only would refuse it.
            let undone = match written {
                0 => Ok(()),
                _ => self.file.set_len(self.length).and_then(|()| self.file.sync_all()),
            };
            return Err(match undone {
                Ok(()) => FlushError::NotWritten(Error::Io { path, source }),
                Err(source) => FlushError::Lost(Error::Io { path, source }),
            });
        }
        crash_point(self.spec.name, "written");
        if durable {
            self.sync()?;
            crash_point(self.spec.name, "synced");
        }
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffered = 0;
        self.flushed = (self.next_seq, self.prev_crc, self.last_time_us);
        Ok(())
    }

    /// What is about to be written continues what was.
    fn assert_chained(&self) {
        let (next_seq, prev_crc, _) = self.flushed;
        assert_eq!(
            next_seq + u64::from(self.buffered),
            self.next_seq,
            "invariant: a batch's frames are numbered without a gap"
        );
        debug_assert_eq!(
            frames::frame_at(&self.buffer, 0).map(|first| (first.seq, first.prev_crc, first.batch_index)),
            Ok((next_seq, prev_crc, 0)),
            "invariant: the first frame of a batch is chained to the last one written"
        );
    }

    /// Makes durable what was written.
    pub fn sync(&self) -> Result<(), FlushError> {
        let started = Instant::now();
        let synced = self.file.sync_data();
        self.sync_seconds.record(started.elapsed().as_secs_f64());
        synced.map_err(|source| {
            let path = self.segments.last().map(|s| s.path.clone()).unwrap_or_default();
            FlushError::Lost(Error::Io { path, source })
        })
    }

    fn forget(&mut self) {
        (self.next_seq, self.prev_crc, self.last_time_us) = self.flushed;
        self.buffer.clear();
        self.buffered = 0;
    }

    fn roll(&mut self) -> Result<(), FlushError> {
        self.sync()?;
        crash_point(self.spec.name, "roll begins");
        let (first_seq, prev_crc, _) = self.flushed;
        let (segment, file) =
            create(self.spec, &self.dir, Header { first_seq, prev_crc, rules: self.spec.rules })
                .map_err(FlushError::NotWritten)?;
        self.segments.push(segment);
        self.file = file;
        self.length = HEADER_BYTES as u64;
        Ok(())
    }

    /// Begins a new segment whatever the size of the last one. Nothing may wait to be flushed.
    pub fn begin_segment(&mut self) -> Result<(), FlushError> {
        assert!(self.buffer.is_empty(), "invariant: a segment begins behind what was flushed");
        if self.length == HEADER_BYTES as u64 {
            // It has the same name and takes the place of the empty one.
            self.segments.pop();
        }
        self.roll()
    }

    /// Removes the segments all of whose frames come before `seq`; never the last one. Answers how many went.
    pub fn drop_before(&mut self, seq: u64) -> Result<usize, Error> {
        let mut count = 0;
        while self.segments.len() > 1 && self.segments[1].first_seq <= seq {
            self.segments[0].remove()?;
            crash_point(self.spec.name, "segment dropped");
            self.segments.remove(0);
            count += 1;
        }
        if count > 0 {
            sync_dir(&self.dir)?;
        }
        Ok(count)
    }

    /// Removes everything; the log begins anew at `first_seq`.
    pub fn restart(&mut self, first_seq: u64) -> Result<(), Error> {
        for segment in &self.segments {
            segment.remove()?;
            crash_point(self.spec.name, "segment removed");
        }
        let header = Header { first_seq, prev_crc: 0, rules: self.spec.rules };
        let (segment, file) = create(self.spec, &self.dir, header)?;
        *self = Self::new(self.spec, &self.dir, vec![segment], file, Place::first(header), 0);
        Ok(())
    }
}

/// Why a batch is not in the log.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// Nothing of it is there; the log can go on.
    #[error(transparent)]
    NotWritten(Error),
    /// Nobody knows what is on disk: the process must end and recover.
    #[error(transparent)]
    Lost(Error),
}

/// Writes everything; answers how much of it is written where that fails.
fn write_all(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => written += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (written, Err(e)),
        }
    }
    (written, Ok(()))
}

fn create(spec: Spec, dir: &Path, header: Header) -> Result<(Segment, File), Error> {
    let path = dir.join(format!("{}-{:020}.log", spec.name, header.first_seq));
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary).map_err(at(&temporary))?;
    file.write_all(&frames::header(spec.magic, header))
        .and_then(|()| file.sync_all())
        .map_err(at(&temporary))?;
    crash_point(spec.name, "segment under its temporary name");
    fs::rename(&temporary, &path).map_err(at(&path))?;
    crash_point(spec.name, "segment renamed");
    sync_dir(dir)?;
    let file = OpenOptions::new().append(true).open(&path).map_err(at(&path))?;
    Ok((Segment { first_seq: header.first_seq, path }, file))
}

/// A segment that a crash left under its temporary name was never part of the log.
fn remove_leftovers(spec: Spec, dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.starts_with(spec.name) && path.extension().is_some_and(|e| e == "tmp") {
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}
