//! The block of MobileNetV2 and its descendants: expand, depthwise, project, and the input added
//! when the shapes allow it.

use aisemble_weights::kernels::Pool;

use crate::compute::{Conv, Map};

/// One block.
#[derive(Debug, Clone)]
pub(super) struct InvertedResidual {
    pub(super) expand: Option<Conv>,
    pub(super) depthwise: Conv,
    pub(super) project: Conv,
}

impl InvertedResidual {
    pub(super) fn forward(&self, pool: &Pool, x: &Map) -> Map {
        let expanded = self.expand.as_ref().map(|expand| expand.forward(pool, x, None));
        self.after_expansion(pool, x, expanded.as_ref().unwrap_or(x))
    }

    /// The block, and what its expansion gave.
    pub(super) fn forward_tapped(&self, pool: &Pool, x: &Map) -> (Map, Option<Map>) {
        let expanded = self.expand.as_ref().map(|expand| expand.forward(pool, x, None));
        (self.after_expansion(pool, x, expanded.as_ref().unwrap_or(x)), expanded)
    }

    fn after_expansion(&self, pool: &Pool, x: &Map, expanded: &Map) -> Map {
        let inner = self.depthwise.forward(pool, expanded, None);
        let same = (inner.h, inner.w, self.project.shape().output) == (x.h, x.w, x.c);
        let stride = self.depthwise.shape().stride;
        self.project.forward(pool, &inner, Some(x).filter(|_| same && stride == 1))
    }

    pub(super) fn convolutions(&self) -> impl Iterator<Item = &Conv> {
        self.expand.iter().chain([&self.depthwise, &self.project])
    }
}
