"""Measures of pictures and of detectors: PSNR, SSIM, LPIPS, FVD, ROC."""
