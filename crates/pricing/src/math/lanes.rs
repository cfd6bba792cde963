//! Running a loop with the widest vector unit of the machine.

use std::sync::LazyLock;

static ARCH: LazyLock<pulp::Arch> = LazyLock::new(pulp::Arch::new);

/// Runs `work` compiled for the vector unit found at start (AVX-512, AVX2, NEON or the platform's baseline).
///
/// What `work` calls must be `#[inline(always)]` to be compiled along with it. The results are the same bits on each of them: the
/// functions of [`math`](crate::math) leave the compiler no freedom to round differently.
#[inline(always)]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    struct Work<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Work<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    ARCH.dispatch(Work(work))
}

/// Runs `work` with the vectors of the machine.
pub(crate) fn dispatch<W: pulp::WithSimd>(work: W) -> W::Output {
    ARCH.dispatch(work)
}

/// Runs `work` with vectors of one number.
pub(crate) fn scalar<W: pulp::WithSimd>(work: W) -> W::Output {
    work.with_simd(pulp::Scalar)
}
