// A small accelerator for the tests of the simulation: reads `beats` words of an image and as many keys, keeps the sums of
// bits (exclusive or) of both, and writes them out. Register `fault` makes it break a rule.
module copier
  import edgemoe_job_pkg::*;
(
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic ap_start,
    output logic ap_done,
    output logic ap_idle,
    input  logic [63:0] image,
    input  logic [63:0] keys,
    input  logic [63:0] result,
    input  logic [15:0] beats,
    input  logic [7:0] fault,

    output logic [63:0] m_axi_gmem_image_ARADDR,
    output logic [7:0] m_axi_gmem_image_ARLEN,
    output logic [2:0] m_axi_gmem_image_ARSIZE,
    output logic [1:0] m_axi_gmem_image_ARBURST,
    output logic m_axi_gmem_image_ARVALID,
    input  logic m_axi_gmem_image_ARREADY,
    input  logic [127:0] m_axi_gmem_image_RDATA,
    input  logic [1:0] m_axi_gmem_image_RRESP,
    input  logic m_axi_gmem_image_RLAST,
    input  logic m_axi_gmem_image_RVALID,
    output logic m_axi_gmem_image_RREADY,

    output logic [63:0] m_axi_gmem_weights_0_ARADDR,
    output logic [7:0] m_axi_gmem_weights_0_ARLEN,
    output logic [2:0] m_axi_gmem_weights_0_ARSIZE,
    output logic [1:0] m_axi_gmem_weights_0_ARBURST,
    output logic m_axi_gmem_weights_0_ARVALID,
    input  logic m_axi_gmem_weights_0_ARREADY,
    input  logic [31:0] m_axi_gmem_weights_0_RDATA,
    input  logic [1:0] m_axi_gmem_weights_0_RRESP,
    input  logic m_axi_gmem_weights_0_RLAST,
    input  logic m_axi_gmem_weights_0_RVALID,
    output logic m_axi_gmem_weights_0_RREADY,

    output logic [63:0] m_axi_gmem_output_AWADDR,
    output logic [7:0] m_axi_gmem_output_AWLEN,
    output logic [2:0] m_axi_gmem_output_AWSIZE,
    output logic [1:0] m_axi_gmem_output_AWBURST,
    output logic m_axi_gmem_output_AWVALID,
    input  logic m_axi_gmem_output_AWREADY,
    output logic [127:0] m_axi_gmem_output_WDATA,
    output logic [15:0] m_axi_gmem_output_WSTRB,
    output logic m_axi_gmem_output_WLAST,
    output logic m_axi_gmem_output_WVALID,
    input  logic m_axi_gmem_output_WREADY,
    input  logic [1:0] m_axi_gmem_output_BRESP,
    input  logic m_axi_gmem_output_BVALID,
    output logic m_axi_gmem_output_BREADY
);

  localparam int ENGINES = 2;
  localparam int DEPTH = 1024;
  localparam int ADDRESS_BITS = $clog2(DEPTH);

  // What may be wrong.
  localparam logic [7:0] MISALIGNED = 1;
  localparam logic [7:0] SIZE = 2;
  localparam logic [7:0] BURST = 3;
  localparam logic [7:0] RANGE = 4;
  localparam logic [7:0] CROSSES = 5;
  localparam logic [7:0] TAKEN_BACK = 6;
  localparam logic [7:0] LAST = 7;
  localparam logic [7:0] HANGS = 8;
  localparam logic [7:0] ASSERTION = 9;
  localparam logic [7:0] JOB = 10;
  localparam logic [7:0] VALUE = 11;
  localparam logic [7:0] UNSET = 12;

  typedef enum logic [2:0] {
    IDLE,
    ASK,
    READ,
    ANNOUNCE,
    WRITE,
    END
  } state_t;
  state_t state;
  logic [15:0] taken;  // beats
  logic [15:0] given;
  logic [15:0] arrived;
  logic ask_image;
  logic ask_keys;
  logic image_command_ready;
  logic keys_command_ready;
  logic write_command_ready;
  logic image_valid;
  logic keys_valid;
  logic [127:0] image_data;
  logic [31:0] keys_data;
  logic takes;
  logic write_valid;
  logic write_ready;
  logic [127:0] write_data;
  logic write_idle;
  logic [2:0] failed;
  logic [1:0] read_idle;

  (* keep *) logic [ENGINES-1:0] event_start;
  logic [ENGINES-1:0] event_done;
  job_t [ENGINES-1:0] event_job;
  wire unused = &{1'b0, event_start, event_done, event_job, failed, read_idle};

  assign takes = state == READ && image_valid && keys_valid && fault != HANGS;
  assign event_start = {state == ANNOUNCE, state == IDLE && ap_start};
  assign event_done = {state == WRITE && write_idle && given == beats, takes && taken + 1'b1 == beats};
  assign ap_idle = state == IDLE;
  assign ap_done = state == END;

  always_comb
    for (int engine = 0; engine < ENGINES; engine++) begin
      event_job[engine] = '0;
      event_job[engine].version = fault == JOB ? '0 : JOB_VERSION;
      event_job[engine].engine = engine_t'(8'(engine));
      event_job[engine].rows = 32'(beats);
    end

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) state <= IDLE;
    else
      case (state)
        IDLE: if (ap_start) state <= ASK;
        ASK: if (!ask_image && !ask_keys) state <= READ;
        READ: if (event_done[0]) state <= ANNOUNCE;
        ANNOUNCE: if (write_command_ready) state <= WRITE;
        WRITE: if (event_done[1]) state <= END;
        default: state <= IDLE;
      endcase

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      ask_image <= 1'b0;
      ask_keys <= 1'b0;
    end else if (state == IDLE) begin
      ask_image <= ap_start;
      ask_keys <= ap_start;
    end else begin
      if (image_command_ready) ask_image <= 1'b0;
      if (keys_command_ready) ask_keys <= 1'b0;
    end

  always_ff @(posedge ap_clk)
    if (state == IDLE) taken <= '0;
    else if (takes) taken <= taken + 1'b1;

  // ---- The store: one word on its way at a time.

  logic [127:0] noise;  // never set
  logic asked;
  logic on_way;
  logic [ADDRESS_BITS-1:0] read_address;
  logic [127:0] sum;
  assign read_address = arrived[ADDRESS_BITS-1:0];
  assign sum = image_data ^ {4{keys_data}} ^ 128'(fault == VALUE && taken == 16'd5) ^ (fault == UNSET ? noise : '0);
  always_ff @(posedge ap_clk) if (fault == UNSET && ap_done) noise <= noise + 1'b1;

  edgemoe_memory #(.WIDTH(128), .DEPTH(DEPTH), .LATENCY(2)) store (
      .ap_clk(ap_clk),
      .write_enable(takes),
      .write_address(taken[ADDRESS_BITS-1:0]),
      .write_data(sum),
      .ce(1'b1),
      .read_address(read_address),
      .read_data(write_data)
  );

  always_ff @(posedge ap_clk)
    if (state != WRITE) begin
      given <= '0;
      arrived <= '0;
      asked <= 1'b0;
      on_way <= 1'b0;
      write_valid <= 1'b0;
    end else begin
      asked <= !asked && !on_way && !write_valid && arrived != beats;
      on_way <= asked;
      if (on_way) write_valid <= 1'b1;
      if (write_valid && write_ready) begin
        write_valid <= 1'b0;
        arrived <= arrived + 1'b1;
        given <= given + 1'b1;
      end
    end

  // ---- Masters, whose signals the faults change on their way out.

  logic [63:0] image_address;
  logic [2:0] image_size;
  logic [1:0] image_burst;
  logic image_asks;
  logic blink;
  logic last;
  assign m_axi_gmem_image_ARADDR = image_address + (fault == MISALIGNED ? 64'd4 : fault == CROSSES ? 64'd16 : fault == RANGE ? 64'h10_0000 : 64'd0);
  assign m_axi_gmem_image_ARSIZE = fault == SIZE ? 3'd2 : image_size;
  assign m_axi_gmem_image_ARBURST = fault == BURST ? 2'd2 : image_burst;
  assign m_axi_gmem_image_ARVALID = image_asks && !(fault == TAKEN_BACK && blink);
  assign m_axi_gmem_output_WLAST = last || fault == LAST;
  always_ff @(posedge ap_clk)
    if (!ap_rst_n) blink <= 1'b0;
    else blink <= !blink;

  edgemoe_axi_read #(.DATA_BITS(128), .COUNT_BITS(16), .OUTSTANDING(8)) image_master (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .command_valid(ask_image),
      .command_ready(image_command_ready),
      .command_address(image),
      .command_beats(beats),
      .out_valid(image_valid),
      .out_ready(takes),
      .out_data(image_data),
      .idle(read_idle[0]),
      .failed(failed[0]),
      .m_axi_ARADDR(image_address),
      .m_axi_ARLEN(m_axi_gmem_image_ARLEN),
      .m_axi_ARSIZE(image_size),
      .m_axi_ARBURST(image_burst),
      .m_axi_ARVALID(image_asks),
      .m_axi_ARREADY(m_axi_gmem_image_ARREADY && m_axi_gmem_image_ARVALID),
      .m_axi_RDATA(m_axi_gmem_image_RDATA),
      .m_axi_RRESP(m_axi_gmem_image_RRESP),
      .m_axi_RLAST(m_axi_gmem_image_RLAST),
      .m_axi_RVALID(m_axi_gmem_image_RVALID),
      .m_axi_RREADY(m_axi_gmem_image_RREADY)
  );

  edgemoe_axi_read #(.DATA_BITS(32), .COUNT_BITS(16), .OUTSTANDING(8)) keys_master (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .command_valid(ask_keys),
      .command_ready(keys_command_ready),
      .command_address(keys),
      .command_beats(beats),
      .out_valid(keys_valid),
      .out_ready(takes),
      .out_data(keys_data),
      .idle(read_idle[1]),
      .failed(failed[1]),
      .m_axi_ARADDR(m_axi_gmem_weights_0_ARADDR),
      .m_axi_ARLEN(m_axi_gmem_weights_0_ARLEN),
      .m_axi_ARSIZE(m_axi_gmem_weights_0_ARSIZE),
      .m_axi_ARBURST(m_axi_gmem_weights_0_ARBURST),
      .m_axi_ARVALID(m_axi_gmem_weights_0_ARVALID),
      .m_axi_ARREADY(m_axi_gmem_weights_0_ARREADY),
      .m_axi_RDATA(m_axi_gmem_weights_0_RDATA),
      .m_axi_RRESP(m_axi_gmem_weights_0_RRESP),
      .m_axi_RLAST(m_axi_gmem_weights_0_RLAST),
      .m_axi_RVALID(m_axi_gmem_weights_0_RVALID),
      .m_axi_RREADY(m_axi_gmem_weights_0_RREADY)
  );

  edgemoe_axi_write #(.DATA_BITS(128), .COUNT_BITS(16), .OUTSTANDING(4)) output_master (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .command_valid(state == ANNOUNCE),
      .command_ready(write_command_ready),
      .command_address(result),
      .command_beats(beats),
      .in_valid(write_valid),
      .in_ready(write_ready),
      .in_data(write_data),
      .idle(write_idle),
      .failed(failed[2]),
      .m_axi_AWADDR(m_axi_gmem_output_AWADDR),
      .m_axi_AWLEN(m_axi_gmem_output_AWLEN),
      .m_axi_AWSIZE(m_axi_gmem_output_AWSIZE),
      .m_axi_AWBURST(m_axi_gmem_output_AWBURST),
      .m_axi_AWVALID(m_axi_gmem_output_AWVALID),
      .m_axi_AWREADY(m_axi_gmem_output_AWREADY),
      .m_axi_WDATA(m_axi_gmem_output_WDATA),
      .m_axi_WSTRB(m_axi_gmem_output_WSTRB),
      .m_axi_WLAST(last),
      .m_axi_WVALID(m_axi_gmem_output_WVALID),
      .m_axi_WREADY(m_axi_gmem_output_WREADY),
      .m_axi_BRESP(m_axi_gmem_output_BRESP),
      .m_axi_BVALID(m_axi_gmem_output_BVALID),
      .m_axi_BREADY(m_axi_gmem_output_BREADY)
  );

  initial assert ($bits(event_job[0]) == JOB_BITS);
  always_ff @(posedge ap_clk) if (ap_rst_n) assert (!(fault == ASSERTION && state == READ));

endmodule
