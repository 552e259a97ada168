/* SPDX-License-Identifier: MIT */
/*
 * The header of one safetensors file. Private to runtime/weights; the format is described at
 * https://github.com/huggingface/safetensors ("Format").
 */
#ifndef LLMDEV_WEIGHTS_SAFETENSORS_H
#define LLMDEV_WEIGHTS_SAFETENSORS_H

#include "weights/header.h"

/*
 * Adds the file's tensors to *tt with file index `file` and absolute offsets. Refused, each with a
 * message naming file, tensor and field: a header longer than the file or HEADER_MAX, JSON that is
 * not one object of the expected members, duplicate names, unknown dtypes, sizes that overflow or
 * differ from dtype x shape, ranges outside the data, overlaps, holes, bytes after the last tensor.
 * On failure *tt may hold some of the tensors; the caller frees it.
 */
int safetensors_read(struct header *h, int file, struct tensor_table *tt, struct err *e);

#endif
