// Engine PATCH_QUEUE: queue 0 becomes the tokens that the patches of all images are, in order.
//
// Each image has `first_token` tokens without a patch, then one for each of the job's rows.
module edgemoe_patch_queue
  import edgemoe_job_pkg::*;
#(
    parameter int TOKEN_BITS = 16
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic start_valid,
    output logic start_ready,
    input  job_t start_job,
    input  logic [TOKEN_BITS-1:0] start_rows,  // of all images
    output logic done,

    output logic patch_valid,
    output logic [TOKEN_BITS-1:0] patch_place,
    output logic [TOKEN_BITS-1:0] patch_token
);
endmodule
