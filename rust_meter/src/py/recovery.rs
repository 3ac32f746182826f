//! A journal as recovery reads it: a run of frames at a time, settle records as the debits they are.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use super::records::{Field, Words, frame_of, new_of, takes_of};
use crate::journal::{Frame, Run, SETTLE};
use crate::settled::Settled;
use crate::unfinished::fold;

/// Where a run ends: offset, CRC, position, and the highest position known synced.
type Place = (usize, u32, u64, u64);

/// Folds runs of frames.
#[pyclass(frozen, module = "farebox._meter")]
struct RunFolder {
    frame: Py<PyAny>,
    debit: Py<PyAny>,
    lot_amount: Py<PyAny>,
}

#[pymethods]
impl RunFolder {
    #[new]
    fn new(frame: Py<PyAny>, debit: Py<PyAny>, lot_amount: Py<PyAny>) -> Self {
        Self { frame, debit, lot_amount }
    }

    #[allow(clippy::too_many_arguments, reason = "a place in a journal, and what is known of it")]
    fn fold<'py>(
        &self,
        py: Python<'py>,
        data: &[u8],
        journal: u64,
        offset: usize,
        before_crc: u32,
        last_pos: u64,
        synced_pos: u64,
        given_pos: u64,
        opens: &Bound<'py, PyDict>,
    ) -> PyResult<(Place, Bound<'py, PyList>, Bound<'py, PyList>)> {
        let rest = data.get(offset..).unwrap_or_default();
        let folded = fold(Run::new(rest, journal, before_crc, last_pos), given_pos, synced_pos);
        if !opens.is_empty() {
            for (exchange, _) in &folded.ends {
                let exchange = PyBytes::new(py, exchange);
                if opens.contains(&exchange)? {
                    opens.del_item(exchange)?;
                }
            }
        }
        for (exchange, kind, payload) in &folded.continued {
            if let Some(payloads) = opens.get_item(PyBytes::new(py, exchange))? {
                payloads.set_item(kind, PyBytes::new(py, payload))?;
            }
        }
        for (exchange, began) in folded.opens() {
            let exchange = PyBytes::new(py, exchange);
            let payloads = match opens.get_item(&exchange)? {
                Some(payloads) => payloads,
                None => PyDict::new(py).into_any(),
            };
            for (kind, payload) in &began.payloads {
                payloads.set_item(kind, PyBytes::new(py, payload))?;
            }
            opens.set_item(exchange, payloads)?;
        }
        let maker = Maker { py, new_tuple: new_of(&py.get_type::<PyTuple>())?, folder: self };
        let (finished, unsynced) = (PyList::empty(py), PyList::empty(py));
        let mut words = Words::new(py);
        for (_, frame) in folded.ends {
            finished.append(maker.finished(frame, &mut words)?)?;
        }
        for frame in folded.unsynced {
            unsynced.append(maker.frame(frame)?)?;
        }
        let run = folded.run;
        let end = data.len().saturating_sub(run.rest().len());
        Ok(((end, run.crc, run.pos, run.synced_pos), finished, unsynced))
    }
}

struct Maker<'py, 'a> {
    py: Python<'py>,
    new_tuple: Bound<'py, PyAny>,
    folder: &'a RunFolder,
}

impl<'py> Maker<'py, '_> {
    /// The debit of a settle frame in the plain form; any other frame as it is.
    fn finished(&self, frame: Frame<'_>, words: &mut Words<'py>) -> PyResult<Bound<'py, PyAny>> {
        let record = frame.record();
        let text = std::str::from_utf8(&record).ok().filter(|_| frame.kind == SETTLE);
        match text.and_then(Settled::read) {
            Some(settled) => self.debit(frame.pos, &settled, words),
            None => self.frame(frame),
        }
    }

    fn debit(&self, pos: u64, settled: &Settled<'_>, words: &mut Words<'py>) -> PyResult<Bound<'py, PyAny>> {
        let takes = takes_of(settled, &self.new_tuple, self.folder.lot_amount.bind(self.py), words)?;
        let fields = (
            pos,
            settled.exchange,
            words.of(Field::User, settled.user),
            words.of(Field::Wallet, settled.wallet),
            settled.amount_pico,
            takes,
        );
        self.new_tuple.call1((self.folder.debit.bind(self.py), fields))
    }

    fn frame(&self, frame: Frame<'_>) -> PyResult<Bound<'py, PyAny>> {
        frame_of(frame, &self.new_tuple, self.folder.frame.bind(self.py))
    }
}

/// Add what recovery reads with.
pub fn add_recovery(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<RunFolder>()
}
