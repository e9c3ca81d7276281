//! One tensor or a part of one: its name in Hugging Face checkpoints, its shape, and how it is stored.

use crate::weights::RowOrder;

/// A matrix `[n, k]`: `n` outputs, `k` inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MatrixName {
    /// Name of the stored tensor, or a unique name for a part of one.
    pub(crate) name: String,
    pub(crate) n: usize,
    pub(crate) k: usize,
    /// Location in a stored tensor, unless it is the whole tensor `name`.
    pub(crate) part: Option<Box<Part>>,
    /// Whether 4 bits cost more here than elsewhere, see `TensorNames::mark_sensitive`.
    pub(crate) sensitive: bool,
}

/// A vector `[len]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VectorName {
    /// Name of the stored tensor, or a unique name for a part of one.
    pub(crate) name: String,
    pub(crate) len: usize,
    /// Location in a stored tensor, in elements, unless it is the whole tensor `name`.
    pub(crate) part: Option<Box<Part>>,
    /// Offset added to the stored elements.
    pub(crate) offset: f32,
    /// Row length of a small matrix that is always computed in f32: `[len / k, k]`, row-major.
    pub(crate) k: Option<usize>,
}

/// Rows of a stored tensor, seen as a matrix whose rows are all dimensions but the last. Row `r` of the part is row
/// `first + r / run * stride + r % run` of the tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) tensor: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) first: usize,
    pub(crate) run: usize,
    pub(crate) stride: usize,
    pub(crate) storage: PartStorage,
}

/// How a [`Part`] is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartStorage {
    /// Row by row.
    Rows,
    /// Column by column: rows of the part are columns of the `k` rows of the tensor from `from` on.
    Columns { from: usize },
    /// Row by row; stored elements `x` of a vector mean `-exp(x)`.
    MinusExp,
    /// Row by row, in MXFP4: `{tensor}_blocks` `[.., k / 32, 16]` and `{tensor}_scales` `[.., k / 32]`.
    Mxfp4,
}

impl Part {
    /// The order of its rows in the tensor.
    pub(crate) fn order(&self) -> RowOrder {
        RowOrder::Runs { first: self.first, run: self.run, stride: self.stride }
    }

    /// Index of row `row` in the tensor.
    pub(crate) fn row(&self, row: usize) -> usize {
        self.order().stored(row)
    }
}

/// A projection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LinearNames {
    pub(crate) weight: MatrixName,
    /// `[n]`.
    pub(crate) bias: Option<VectorName>,
}

impl VectorName {
    pub(crate) fn new(name: String, len: usize, offset: f32) -> Self {
        VectorName { name, len, part: None, offset, k: None }
    }

    /// A whole tensor of `shape`, as a matrix with rows of `k` elements.
    pub(crate) fn matrix(name: String, shape: Vec<usize>, k: usize) -> Self {
        let len = shape.iter().product();
        let part = Some(Box::new(Part::whole(name.clone(), shape)));
        VectorName { name, len, part, offset: 0.0, k: Some(k) }
    }

    /// A scalar: a tensor without dimensions.
    pub(crate) fn scalar(name: String) -> Self {
        let part = Some(Box::new(Part::whole(name.clone(), Vec::new())));
        VectorName { name, len: 1, part, offset: 0.0, k: None }
    }

    /// The weights of a convolution over each channel: `[channels, 1, kernel_size]`.
    pub(crate) fn convolution(name: String, channels: usize, kernel_size: usize) -> Self {
        VectorName { k: None, ..VectorName::matrix(name, vec![channels, 1, kernel_size], 1) }
    }

    /// `-exp(A_log)`: the negative rates at which the states of the heads of `module` decay, `[heads]`.
    pub(crate) fn decay_rates(module: &str, heads: usize) -> Self {
        let part = Part::whole(format!("{module}.A_log"), vec![heads]);
        let part = Some(Box::new(Part { storage: PartStorage::MinusExp, ..part }));
        VectorName { name: format!("{module}.A_log.rate"), len: heads, part, offset: 0.0, k: None }
    }

    /// Elements in memory: a small matrix is packed in panels of 16 rows.
    pub(crate) fn padded_len(&self) -> usize {
        self.k.map_or(self.len, |k| (self.len / k.max(1)).next_multiple_of(16) * k)
    }
}

impl Part {
    /// A whole tensor.
    fn whole(tensor: String, shape: Vec<usize>) -> Self {
        Part { tensor, shape, first: 0, run: usize::MAX, stride: 0, storage: PartStorage::Rows }
    }
}

/// The projection `module`, `[n, k]`, without a bias.
pub(crate) fn linear(prefix: &str, module: &str, n: usize, k: usize) -> LinearNames {
    let name = format!("{prefix}.{module}.weight");
    LinearNames { weight: MatrixName { name, n, k, part: None, sensitive: false }, bias: None }
}

impl LinearNames {
    /// The projection, stored as `[inputs, outputs]`.
    pub(crate) fn transposed(mut self) -> Self {
        let MatrixName { name, n, k, .. } = &self.weight;
        let part = Part::whole(name.clone(), vec![*k, *n]);
        self.weight.part = Some(Box::new(Part { storage: PartStorage::Columns { from: 0 }, ..part }));
        self
    }

    /// The projection with its bias, if it has one.
    pub(crate) fn with_bias(self, has_bias: bool) -> Self {
        let name = &self.weight.name;
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let bias = has_bias.then(|| VectorName::new(format!("{module}.bias"), self.weight.n, 0.0));
        LinearNames { bias, ..self }
    }
}

/// Rows of a joined projection, in runs at regular distances.
pub(crate) struct Runs {
    pub(crate) first: usize,
    pub(crate) run: usize,
    pub(crate) stride: usize,
    /// Rows in all.
    pub(crate) of: usize,
}

impl Runs {
    /// `n` rows of `all`, under its name with the suffix `what`.
    pub(crate) fn linear(&self, all: &LinearNames, what: &str, n: usize) -> LinearNames {
        let Runs { first, run, stride, of } = *self;
        let part = |tensor: &str, shape: Vec<usize>| {
            let (tensor, storage) = (tensor.to_owned(), PartStorage::Rows);
            Some(Box::new(Part { tensor, shape, first, run, stride, storage }))
        };
        let (weight, k) = (&all.weight.name, all.weight.k);
        LinearNames {
            weight: MatrixName {
                name: format!("{weight}.{what}"),
                n,
                k,
                part: part(weight, vec![of, k]),
                sensitive: false,
            },
            bias: all.bias.as_ref().map(|bias| VectorName {
                name: format!("{}.{what}", bias.name),
                len: n,
                part: part(&bias.name, vec![of]),
                offset: 0.0,
                k: None,
            }),
        }
    }
}
