// The error that loading or launching a PTX module ends with: one sentence that names the kernel, the line and its
// text.
#pragma once

#include <stdexcept>
#include <string>

namespace flopcuda::ptxvm {

class PtxError : public std::runtime_error {
 public:
  explicit PtxError(const std::string& message, std::string kernel = "", int line = 0, std::string text = "")
      : std::runtime_error(sentence(message, kernel, line, text)),
        message_(message),
        kernel_(std::move(kernel)),
        line_(line),
        text_(std::move(text)) {}

  const std::string& message() const { return message_; }  // without the place
  const std::string& kernel() const { return kernel_; }
  int line() const { return line_; }
  const std::string& text() const { return text_; }

 private:
  static std::string sentence(const std::string& message, const std::string& kernel, int line,
                              const std::string& text) {
    std::string where;
    if (!kernel.empty()) where += kernel + ", ";
    if (line > 0) where += "line " + std::to_string(line) + ": ";
    return where + message + (text.empty() ? "" : ": " + text);
  }

  std::string message_;
  std::string kernel_;
  int line_;
  std::string text_;
};

}  // namespace flopcuda::ptxvm
