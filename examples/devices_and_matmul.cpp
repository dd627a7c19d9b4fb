// Lists the devices of this machine and multiplies two matrices.
#include <tensor/devices.h>
#include <tensor/tensor.h>

#include <cstdio>
#include <iostream>
#include <string>

int main() {
  using espalier::Tensor;
  for (const espalier::DeviceDescription& d : espalier::devices())
    std::printf("%-10s %s (fastest precision %s)\n", d.device.name().c_str(), d.what.c_str(),
                std::string(espalier::ir::dtype_name(d.fastest)).c_str());
  if (const std::string reason = espalier::why_no_gpu(); !reason.empty())
    std::printf("no GPU: %s\n", reason.c_str());

  const Tensor a = Tensor::of({{1, 2, 3}, {4, 5, 6}});
  const Tensor b = Tensor::of({{1, 0}, {0, 1}, {1, 1}});
  std::cout << "a b = " << matmul(a, b) << '\n';

  const Tensor c = Tensor::randn({512, 256}, 1), d = Tensor::randn({256, 512}, 2);
  std::cout << "mean square of a 512 x 512 product: " << matmul(c, d).square().mean().item()
            << " (256 expected)\n";
}
