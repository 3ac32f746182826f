//! The journal as Python reads it: frames that follow each other, and plain settlements ready to be booked.

use std::collections::HashMap;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple, PyType};

use crate::journal::{Frame, Run};
use crate::packed::unpack;
use crate::settled::{Settled, Sums, lots_text};

/// Frames that follow each other without a gap, and which exchanges they open and end.
#[pyfunction]
#[allow(clippy::too_many_arguments, reason = "a reader's place in a journal")]
fn decode_run<'py>(
    py: Python<'py>,
    frame_type: &Bound<'py, PyAny>,
    data: &[u8],
    journal: u64,
    before_crc: u32,
    last_pos: u64,
    opens: &Bound<'py, PyDict>,
    sequence: &Bound<'py, PyInt>,
    only_ends: bool,
) -> PyResult<(Bound<'py, PyList>, usize, u32, u64)> {
    let new_tuple = new_of(&py.get_type::<PyTuple>())?;
    let frames = PyList::empty(py);
    let give = |frame: Frame<'_>| frames.append(frame_of(frame, &new_tuple, frame_type)?);
    let mut run = Run::new(data, journal, before_crc, last_pos);
    let mut before = run;
    let mut left_out = None;
    while let Some(frame) = run.next() {
        if frame.is_end() || frame.is_beginning() {
            // One that names no exchange is an error, which the caller raises.
            let Some(name) = frame.exchange() else {
                run = before;
                break;
            };
            let name = PyBytes::new(py, name);
            if frame.is_beginning() {
                opens.set_item(name, sequence)?;
            } else if opens.contains(&name)? {
                opens.del_item(name)?;
            }
        }
        left_out = Some(frame).filter(|frame| only_ends && !frame.is_end());
        if left_out.is_none() {
            give(frame)?;
        }
        before = run;
    }
    left_out.map_or(Ok(()), give)?;
    Ok((frames, data.len().saturating_sub(run.rest().len()), run.crc, run.pos))
}

/// The record of a frame's payload.
#[pyfunction]
#[pyo3(name = "unpack")]
fn unpacked<'py>(py: Python<'py>, payload: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &unpack(payload))
}

/// `__new__` of a built-in type: makes an object of a type derived from it without that type's constructor.
pub(super) fn new_of<'py>(built_in: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyAny>> {
    built_in.getattr(intern!(built_in.py(), "__new__"))
}

/// A frame as the named tuple `frame_type`.
pub(super) fn frame_of<'py>(
    frame: Frame<'_>,
    new_tuple: &Bound<'py, PyAny>,
    frame_type: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let record = PyBytes::new(new_tuple.py(), &frame.record());
    new_tuple.call1((frame_type, (frame.kind, frame.pos, record)))
}

/// What the lots pay, each as the named tuple `lot_amount`.
pub(super) fn takes_of<'py>(
    settled: &Settled<'_>,
    new_tuple: &Bound<'py, PyAny>,
    lot_amount: &Bound<'py, PyAny>,
    words: &mut Words<'py>,
) -> PyResult<Bound<'py, PyTuple>> {
    let mut takes = Vec::with_capacity(settled.takes.len());
    for (lot, pool, amount_pico) in &settled.takes {
        let fields = (words.of(Field::Lot, lot), words.of(Field::Pool, pool), amount_pico);
        takes.push(new_tuple.call1((lot_amount, fields))?);
    }
    PyTuple::new(new_tuple.py(), takes)
}

/// Makes the records of plain settle frames.
#[pyclass(frozen, module = "farebox._meter")]
struct SettlementReader {
    settlement: Py<PyAny>,
    lot_amount: Py<PyAny>,
    finished: Py<PyAny>,
}

#[pymethods]
impl SettlementReader {
    #[new]
    fn new(settlement: Py<PyAny>, lot_amount: Py<PyAny>, finished: Py<PyAny>) -> Self {
        Self { settlement, lot_amount, finished }
    }

    fn read<'py>(
        &self,
        py: Python<'py>,
        frames: &Bound<'py, PyList>,
    ) -> PyResult<(Bound<'py, PyList>, Vec<usize>)> {
        let mut payloads = Vec::with_capacity(frames.len());
        for frame in frames {
            let frame = frame.cast_into::<PyTuple>()?;
            payloads.push((frame.get_item(1)?, frame.get_item(2)?.cast_into::<PyBytes>()?));
        }
        let maker = Maker {
            py,
            new_tuple: new_of(&py.get_type::<PyTuple>())?,
            new_settlement: new_of(&py.get_type::<PyAny>())?,
            reader: self,
        };
        let mut words = Words::new(py);
        let found = PyList::empty(py);
        let mut odd = Vec::new();
        for (index, (pos, payload)) in payloads.iter().enumerate() {
            let text = std::str::from_utf8(payload.as_bytes()).ok();
            let record = text.and_then(|text| Settled::read(text).map(|settled| (text, settled)));
            if let Some((text, settled)) = record {
                let settlement = maker.settlement(&settled, payload, text, &mut words)?;
                found.append(maker.new_tuple.call1((self.finished.bind(py), (pos, settlement)))?)?;
            } else {
                odd.push(index);
                found.append(py.None())?;
            }
        }
        Ok((found, odd))
    }
}

/// Fields that often hold what they held in the record before.
#[derive(Clone, Copy)]
pub(super) enum Field {
    User,
    Wallet,
    Model,
    Lot,
    Pool,
}
const FIELDS: usize = 5;

/// Strings that many records have in common, made once.
pub(super) struct Words<'py> {
    py: Python<'py>,
    last: [Option<Bound<'py, PyString>>; FIELDS],
    known: HashMap<Box<str>, Bound<'py, PyString>>,
}

impl<'py> Words<'py> {
    pub(super) fn new(py: Python<'py>) -> Self {
        Self { py, last: [const { None }; FIELDS], known: HashMap::new() }
    }

    pub(super) fn of(&mut self, field: Field, text: &str) -> Bound<'py, PyString> {
        if let Some(Some(last)) = self.last.get(field as usize)
            && last.to_str().is_ok_and(|last| last == text)
        {
            return last.clone();
        }
        let word = self.known(text);
        if let Some(last) = self.last.get_mut(field as usize) {
            *last = Some(word.clone());
        }
        word
    }

    fn known(&mut self, text: &str) -> Bound<'py, PyString> {
        if let Some(word) = self.known.get(text) {
            return word.clone();
        }
        let word = PyString::new(self.py, text);
        self.known.insert(text.into(), word.clone());
        word
    }
}

struct Maker<'py, 'a> {
    py: Python<'py>,
    new_tuple: Bound<'py, PyAny>,
    new_settlement: Bound<'py, PyAny>,
    reader: &'a SettlementReader,
}

impl<'py> Maker<'py, '_> {
    /// A settlement with the fields that booking asks for; `Settlement` reads the others when asked.
    fn settlement(
        &self,
        settled: &Settled<'_>,
        payload: &Bound<'py, PyBytes>,
        text: &str,
        words: &mut Words<'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let made = self.new_settlement.call1((self.reader.settlement.bind(py),))?;
        let exchange = PyString::new(py, settled.exchange);
        let user = words.of(Field::User, settled.user);
        let amount_pico = settled.amount_pico.into_pyobject(py)?;
        let ended_ms = settled.ended_ms.into_pyobject(py)?;
        made.setattr(intern!(py, "exchange"), &exchange)?;
        made.setattr(intern!(py, "user"), &user)?;
        let (model, wallet) =
            (words.of(Field::Model, settled.model), words.of(Field::Wallet, settled.wallet));
        made.setattr(intern!(py, "wallet"), &wallet)?;
        made.setattr(intern!(py, "model"), &model)?;
        made.setattr(intern!(py, "input_total"), settled.input_total)?;
        made.setattr(intern!(py, "output_total"), settled.output_tokens())?;
        made.setattr(intern!(py, "amount_pico"), &amount_pico)?;
        let takes = takes_of(settled, &self.new_tuple, self.reader.lot_amount.bind(py), words)?;
        made.setattr(intern!(py, "takes"), takes)?;
        made.setattr(intern!(py, "quarantine"), intern!(py, ""))?;
        made.setattr(intern!(py, "ended_ms"), &ended_ms)?;
        made.setattr(intern!(py, "wire"), payload)?;
        let usage = PlainUsage {
            user: user.clone().unbind(),
            model: model.unbind(),
            wallet: wallet.unbind(),
            ended_ms: settled.ended_ms,
            sums: settled.sums(),
        };
        made.setattr(intern!(py, "usage"), usage)?;
        let logged = (&exchange, &user, ended_ms, &amount_pico, &amount_pico, PyString::new(py, text));
        made.setattr(intern!(py, "log_cells"), logged)?;
        let row = settled.only_take().map(|take| {
            let taken_pico = 0_i64.saturating_sub_unsigned(take.2);
            (
                user,
                exchange,
                words.of(Field::Pool, take.1),
                taken_pico,
                lots_text(take),
                settled.charge_text(),
            )
        });
        made.setattr(intern!(py, "ledger_cells"), row)?;
        Ok(made)
    }
}

/// What one plain exchange adds to the rollups, and to whose.
#[pyclass(frozen, module = "farebox._meter")]
struct PlainUsage {
    user: Py<PyString>,
    model: Py<PyString>,
    wallet: Py<PyString>,
    ended_ms: u64,
    sums: Sums,
}

impl PlainUsage {
    /// Which usages are added up: of the same three strings (as objects) and the same step of time.
    fn place(&self, step_ms: u64) -> [u64; 4] {
        let start_ms =
            self.ended_ms.checked_rem(step_ms).map_or(0, |rest| self.ended_ms.saturating_sub(rest));
        let address = |word: &Py<PyString>| word.as_ptr().addr() as u64;
        [start_ms, address(&self.user), address(&self.model), address(&self.wallet)]
    }
}

/// Usages of one user, model, wallet and step of time, added up; some may come in several parts.
#[pyfunction]
fn add_up<'py>(
    py: Python<'py>,
    usages: Vec<PyRef<'py, PlainUsage>>,
    step_ms: u64,
) -> PyResult<Bound<'py, PyList>> {
    let mut places: HashMap<[u64; 4], (&PlainUsage, [i128; 15])> = HashMap::new();
    for usage in &usages {
        let (_, sums) = places.entry(usage.place(step_ms)).or_insert((usage, [0; 15]));
        for (sum, number) in sums.iter_mut().zip(usage.sums) {
            *sum = sum.saturating_add(i128::from(number));
        }
    }
    let found = PyList::empty(py);
    for (place, (usage, sums)) in &places {
        found.append((&usage.user, &usage.model, &usage.wallet, place[0], PyTuple::new(py, sums)?))?;
    }
    Ok(found)
}

/// Add what reads a journal.
pub fn add_records(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SettlementReader>()?;
    module.add_class::<PlainUsage>()?;
    module.add_function(wrap_pyfunction!(add_up, module)?)?;
    module.add_function(wrap_pyfunction!(unpacked, module)?)?;
    module.add_function(wrap_pyfunction!(decode_run, module)?)
}
